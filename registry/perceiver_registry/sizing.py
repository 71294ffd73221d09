"""Defaults by the size of the data, which the rule of an input adapter chooses.

Rules belong to input adapters, since they follow the modality: texts, images and tables of equal size need different
models, whether they are classified or have numbers predicted. The task is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from perceiver_registry.errors import PluginError, UserError, in_one_line
from perceiver_registry.registry import NOUNS, Entry
from perceiver_registry.specs import AdapterSpec


@dataclass(frozen=True)
class SizedDefaults:
    """Defaults for data of one size.

    Attributes:
        facts: the size, for the line that a run prints: "10,003 texts, 77 classes".
        defaults: values by dotted flag (``{"model.num_latents": 8, "trainer.max_epochs": 13}``). Not the data module's
            options, since it exists already, and no names of classes, which decide which flags exist.
    """

    facts: str
    defaults: Mapping[str, Any]


SizeRule = Callable[[Any, str, Mapping[str, Any]], SizedDefaults | None]
"""Function of the data module, the name of the task and the values of the run by dotted flag. None: no defaults.

A data module of the SDK has ``num_train_examples``, which is None for streams; any may lack attributes. Each process of
a distributed run calls the rule, which must have the same result in all of them.
"""

SIZED_SECTIONS = ("model", "task", "optimizer", "lr_scheduler", "trainer", "checkpoint")
"""Sections with options that rules may choose. The data module exists before its size is known."""

CHOSEN_EARLIER = (
    "task.name",
    "model.name",
    "model.params",
    "model.encoder",
    "model.encoder.adapter",
    "model.encoder.params",
    "model.decoder",
    "model.decoder.adapter",
    "optimizer.name",
    "lr_scheduler.name",
)
"""Options in these sections that decide which flags exist, or where weights come from."""


def apply_size_rule(
    adapter: Entry[AdapterSpec], datamodule: Any, task: str, values: Mapping[str, Any]
) -> SizedDefaults | None:
    """Call the rule of an input adapter.

    Args:
        adapter: the adapter.
        datamodule: the data module.
        task: name of the task.
        values: values of the run by dotted flag.

    Returns:
        Defaults by the size of the data. None: the adapter has no rule, or the rule none for this data and task.

    Raises:
        UserError: if the data cannot be read.
        PluginError: if the rule cannot be imported, fails or has an invalid result.
    """
    if adapter.spec.size_rule is None:
        return None
    rule: SizeRule = adapter.resolve("size_rule")
    named = f"{NOUNS[adapter.kind]} {adapter.name!r} ({adapter.plugin}): size_rule {adapter.spec.size_rule!r}"
    try:
        found = rule(datamodule, task, values)
    except UserError:
        raise
    except Exception as error:  # third-party functions may raise anything
        raise PluginError(f"{named} fails: {in_one_line(error)}") from error
    if found is None:
        return None
    if problem := problem_of_sized_defaults(found):
        raise PluginError(f"{named}: {problem}")
    return found


def problem_of_sized_defaults(found: object) -> str | None:
    """Return what is wrong with the result of a rule, or None."""
    if not isinstance(found, SizedDefaults):
        return f"its result is {type(found).__name__}, must be SizedDefaults or None"
    if not isinstance(found.facts, str) or "\n" in found.facts or not found.facts.strip():
        return f"facts={found.facts!r} must be one line"
    if not isinstance(found.defaults, Mapping):
        return f"defaults is {type(found.defaults).__name__}, must be a mapping by dotted flag"
    return next(
        (f"{key!r} cannot depend on the size of the data" for key in found.defaults if not _is_sized(key)), None
    )


def _is_sized(key: object) -> bool:
    section, dot, _ = key.partition(".") if isinstance(key, str) else ("", "", "")
    return section in SIZED_SECTIONS and bool(dot) and key not in CHOSEN_EARLIER
