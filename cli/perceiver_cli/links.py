"""Linked fields: values of adapter configs that are taken from the data module."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from perceiver_cli.notes import note
from perceiver_cli.values import KINDS, Values, name_of
from perceiver_registry import UserError, registry
from perceiver_registry.configs import config_types
from perceiver_registry.specs import ANY_TASK


def linked_fields(values: Values) -> Iterator[tuple[str, str, str]]:
    """(section, field, attribute of the data module) of each of the adapters' fields that the data can fill in."""
    for section in ("model.encoder", "model.decoder"):
        name = name_of(values, section)
        links = registry().get(KINDS[section], name).spec.links if name else {}  # type: ignore[call-overload]
        yield from ((section, field, attribute) for field, attribute in links.items())


def fill_in_links(values: Values, datamodule: Any) -> None:
    """Set the adapters' linked fields that have no value to those of the data module.

    A field of which the data module has no such attribute gets its default only where that is None, or where the data
    is made for any model.

    Args:
        values: the values of the run, which are changed.
        datamodule: the data module.

    Raises:
        UserError: if the data module lacks an attribute of which the model needs a value.
    """
    data = name_of(values, "data") or type(datamodule).__name__
    entry = registry().find("data", data)
    serves_any = entry is not None and ANY_TASK in entry.spec.tasks
    types = config_types(*(name_of(values, f"model.{part}") or "" for part in ("encoder", "decoder")))
    for section, field, attribute in linked_fields(values):
        options = values["model"][section.removeprefix("model.")]
        if options.get(field) is not None:
            continue
        if _has(datamodule, attribute):
            value = getattr(datamodule, attribute)
        else:
            value = _default(types[section], field)
            if not serves_any or value is dataclasses.MISSING:
                _report_missing(f"--{section}.{field}", f"--data={data} has no attribute {attribute!r}", value)
        options[field] = list(value) if isinstance(value, tuple) else value


def _report_missing(flag: str, reason: str, default: Any) -> None:
    """Raise an error about a field that the data lacks, or print that it is left out if its default is None."""
    if default is not None:
        raise UserError(f"{flag}: {reason} to take it from (give {flag}=VALUE)")
    note(f"perceiver: {flag}: left out: {reason}")


def _has(datamodule: Any, attribute: str) -> bool:
    # An attribute of the class may raise an error that says which option gives it a value.
    return hasattr(type(datamodule), attribute) or hasattr(datamodule, attribute)


def _default(config_type: type, field: str) -> Any:
    (found,) = (each for each in dataclasses.fields(config_type) if each.name == field)
    return found.default if found.default_factory is dataclasses.MISSING else found.default_factory()
