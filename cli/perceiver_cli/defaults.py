"""Check of the defaults in plugins' specs, where a misspelt key would be ignored."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from perceiver_cli.flags import Parser
from perceiver_cli.layers import values_of_spec
from perceiver_cli.run_config import Run
from perceiver_cli.suggestions import suggest_name
from perceiver_cli.unused_options import options_of_other_architectures
from perceiver_cli.values import KINDS, NAME_KEYS, Values, flatten, name_of
from perceiver_registry import Entry, PluginError, registry
from perceiver_registry.registry import NOUNS

CLASSES = {"task": "module", "input": "config", "output": "config", "data": "module"}
"""Field of a spec with the class whose arguments are flags, by kind of spec."""


def check_defaults(parser: Parser, run: Run) -> None:
    """Check that the defaults of the specs that a run uses are flags.

    Defaults for another architecture, adapter, data module or optimizer than the chosen one are skipped. If the spec
    chooses none, a default applies to any that has the field, such as a task's ``data.target``.

    Args:
        parser: the parser of the run's flags.
        run: the run.

    Raises:
        PluginError: if a default is not a flag; the message names the spec.
    """
    assert run.task is not None
    for section, kind in (("task", "task"), ("model", "model"), ("data", "data")):
        name = name_of(run.values, section)
        entry = registry().find(kind, name) if name else None
        if entry is not None:
            check_keys(parser, run, entry, _defaults(entry, run.task.name), "its defaults")


def check_keys(parser: Parser, run: Run, entry: Entry[Any], defaults: Values, noun: str) -> None:
    """Check that defaults are flags, as in :func:`check_defaults`.

    Args:
        parser: the parser of the run's flags.
        run: the run.
        entry: the registered object that has the defaults.
        defaults: nested values.
        noun: what contains the defaults: "its defaults".

    Raises:
        PluginError: if a default is not a flag.
    """
    names, unused = parser.names(), options_of_other_architectures(run)
    for key in flatten(defaults, parser.leaves()):
        if key not in names and key not in unused and _applies(key, entry, defaults, run, names):
            raise PluginError(
                f"{NOUNS[entry.kind]} {entry.name!r} ({entry.plugin}): unknown key {key!r} in {noun} ("
                f"{suggest_name(key, names, 'perceiver describe NAME lists the fields')})"
            )


def _defaults(entry: Entry[Any], task: str) -> Values:
    """Return the default values of a task, data module or named model, for a task of that name."""
    spec = entry.spec
    defaults = spec.defaults_for(task) if entry.kind == "data" else spec.defaults
    config = {f"model.{field}": value for field, value in getattr(spec, "config", {}).items()}
    return values_of_spec(entry, {**config, **defaults})


def _applies(key: str, entry: Entry[Any], defaults: Values, run: Run, names: Collection[str]) -> bool:
    """Return whether a default applies to the adapter, data module or optimizer that a run has chosen."""
    assert run.task is not None
    section = max((each for each in NAME_KEYS if key.startswith(f"{each}.")), key=len, default=None)
    if section is None or section == "model":
        return True
    chosen = name_of(run.values, section)
    intended = registry().short_name(entry) if entry.kind == section else name_of(defaults, section)
    if intended is not None:
        return intended == chosen
    if section in KINDS:
        return not _is_field_of_any(KINDS[section], key.removeprefix(f"{section}."))
    return chosen is not None and chosen == name_of(_defaults(run.task, run.task.name), section)


def _is_field_of_any(kind: str, field: str) -> bool:
    """Return whether a registered class has a field. True as well if a class cannot be imported."""
    for entry in registry().entries(kind):  # type: ignore[call-overload]
        try:
            classes = [entry.resolve(CLASSES[kind])]
            if kind == "data":
                classes += [entry.resolve("modules", task) for task in entry.spec.modules]
            arguments = [
                name
                for each in classes
                for base in each.__mro__
                for name in inspect.signature(base.__init__).parameters
            ]
        except Exception:  # raised by a third-party module
            return True
        if field.partition(".")[0] in arguments:
            return True
    return False
