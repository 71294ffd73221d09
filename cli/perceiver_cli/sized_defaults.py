"""Defaults by the size of the data, in a layer above the task's defaults."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import reduce
from typing import Any

from perceiver_cli.defaults import check_keys
from perceiver_cli.flags import Parser
from perceiver_cli.layers import ConfigLayer, layer_with, values_of_spec
from perceiver_cli.limits import replaced_limits
from perceiver_cli.model_layers import source_of_entry
from perceiver_cli.run_config import Run
from perceiver_cli.validation import validate
from perceiver_cli.values import Values, architecture_of, flatten, name_of
from perceiver_registry import ArchitectureSpec, Entry, PluginError, TaskSpec, UserError, registry
from perceiver_registry.registry import NOUNS
from perceiver_registry.sizing import apply_size_rule


def apply_sized_defaults(parser: Parser, run: Run, values: Values, datamodule: Any) -> tuple[Run, str]:
    """Set the options that the size rule of the input adapter chooses, unless anything but the task has set them.

    The defaults of the data module and of a named model, pretrained weights, config files and flags take precedence.

    Args:
        parser: the parser of the run's flags.
        run: a run that is not resumed.
        values: the values of the run with linked fields filled in, changed in place.
        datamodule: the data module.

    Returns:
        The run with the additional layer, and a line with the size of the data and the options that were set, by the
        rule and by the data module for the task; "" if the rule set none.

    Raises:
        UserError: if the data cannot be read.
        PluginError: if the rule fails, or if an option does not exist or has a wrong type.
    """
    assert run.task is not None
    if registry().get("architecture", architecture_of(values) or "") != _default_architecture(run.task):
        return run, ""  # rules choose sizes for the task's default architecture
    adapter = registry().get("input", name_of(values, "model.encoder") or "")
    found = apply_size_rule(adapter, datamodule, run.task.name, flatten(values, parser.leaves()))
    if found is None:
        return run, ""
    source = f"{NOUNS['input']} {adapter.name!r} ({adapter.plugin}): size_rule"
    # With the adapter's name, so that its options apply when the user has chosen another adapter than the task's.
    named = {"model.encoder": registry().short_name(adapter), **found.defaults}
    layer = ConfigLayer(source, values_of_spec(adapter, named))
    check_keys(parser, run, adapter, layer.values, "its size_rule")
    sized = _with_layer(run, layer)
    try:
        validated = validate(parser, sized)
    except UserError as error:  # all other values are valid
        raise PluginError(str(error)) from error
    options = set(_options_set(parser, run, layer)) - {f"trainer.{name}" for name in replaced_limits(validated, sized)}
    applied = {name: _get(validated, name) for name in found.defaults if name in options}
    for name, value in applied.items():
        _set(values, name, value)
    return sized, _line(found.facts, applied, _data_defaults(run, values)) if applied else ""


def _data_defaults(run: Run, values: Values) -> Values:
    """Return the defaults of the data module for the task that nothing else has set, by dotted name."""
    assert run.task is not None
    data = registry().find("data", name_of(values, "data") or "")
    if data is None:
        return {}
    source = source_of_entry(data)
    return {
        name: _get(values, name)
        for name in data.spec.task_defaults.get(run.task.name, {})
        if not run.has_flag(name) and layer_with(run.layers, name).source == source
    }


def _default_architecture(task: Entry[TaskSpec]) -> Entry[ArchitectureSpec]:
    return registry().get("architecture", task.spec.architecture, task.plugin)


def _with_layer(run: Run, layer: ConfigLayer) -> Run:
    task, *others = run.below
    return replace(run, below=[task, layer, *others])


def _options_set(parser: Parser, run: Run, layer: ConfigLayer) -> Iterable[str]:
    """Return the options whose value in a run is that of a layer above the task's."""
    names = parser.names()
    marked = ConfigLayer(layer.source, _marked(layer.values))
    merged = flatten(_with_layer(run, marked).values)
    return [name for name, value in merged.items() if value is ... and name in names and not run.has_flag(name)]


def _marked(values: Mapping[str, Any]) -> Values:
    """Replace values by an ellipsis, except names of classes, which decide what is merged."""
    return {
        key: _marked(value) if isinstance(value, Mapping) else value if key == "adapter" else ...
        for key, value in values.items()
    }


def _line(facts: str, applied: Mapping[str, Any], of_data: Mapping[str, Any]) -> str:
    flags = (shlex.quote(f"--{name}={_text(value)}") for name, value in {**of_data, **applied}.items())
    sources = "the size of the data and its module" if of_data else "the size of the data"
    return f"{facts}: {' '.join(flags)} (defaults by {sources})"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _get(values: Values, name: str) -> Any:
    return reduce(lambda node, key: node[key], name.split("."), values)


def _set(values: Values, name: str, value: Any) -> None:
    section, _, key = name.rpartition(".")
    _get(values, section)[key] = value
