"""Linked fields: fields of adapter configs that default to attributes of the data module."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from perceiver_cli.notes import note
from perceiver_cli.values import KINDS, Values, architecture_of, name_of
from perceiver_registry import UserError, registry
from perceiver_registry.configs import config_types
from perceiver_registry.specs import ANY_TASK

SHAPE_ERRORS = (RuntimeError, ValueError, IndexError)
"""Errors that torch raises about tensors of other sizes than an operation needs."""


def linked_fields(values: Values) -> Iterator[tuple[str, str, str]]:
    """Yield (section, field, attribute of the data module) of the adapters' linked fields."""
    for section in ("model.encoder", "model.decoder"):
        name = name_of(values, section)
        links = registry().get(KINDS[section], name).spec.links if name else {}  # type: ignore[call-overload]
        yield from ((section, field, attribute) for field, attribute in links.items())


def fill_in_links(values: Values, datamodule: Any) -> list[str]:
    """Set the linked fields without a value to the attributes of a data module.

    A field whose attribute the data module lacks gets its default if that is None, or if the data serves any task.

    Args:
        values: the values of the run, changed in place.
        datamodule: the data module.

    Returns:
        Dotted names of the fields that were set.

    Raises:
        UserError: if the data module lacks an attribute that the model needs.
    """
    filled = []
    data = name_of(values, "data") or type(datamodule).__name__
    entry = registry().find("data", data)
    serves_any = entry is not None and ANY_TASK in entry.spec.tasks
    encoder, decoder = (name_of(values, f"model.{part}") or "" for part in ("encoder", "decoder"))
    types = config_types(encoder, decoder, architecture_of(values))
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
        filled.append(f"{section}.{field}")
    return filled


def links_left_open(values: Values, run: Mapping[str, Any], has_flag: Callable[[str], bool]) -> list[str]:
    """Return the linked fields without a value in the configuration of a run that is resumed.

    Args:
        values: the values of the resumed run.
        run: the configuration saved with its checkpoint.
        has_flag: returns whether a flag sets an option.
    """
    model = run.get("model") or {}
    names = ((section, field, f"{section}.{field}") for section, field, _ in linked_fields(values))
    return [
        name
        for section, field, name in names
        if not has_flag(name) and (model.get(section.removeprefix("model.")) or {}).get(field, "") is None
    ]


def _report_missing(flag: str, reason: str, default: Any) -> None:
    """Print a note about a field without a value, or raise an error if the field needs one."""
    if default is not None:
        raise UserError(f"{flag}: {reason} to take it from (give {flag}=VALUE)")
    note(f"perceiver: {flag}: left out: {reason}")


def _has(datamodule: Any, attribute: str) -> bool:
    # A property may raise an error that names the option it needs.
    return hasattr(type(datamodule), attribute) or hasattr(datamodule, attribute)


def _default(config_type: type, field: str) -> Any:
    (found,) = (each for each in dataclasses.fields(config_type) if each.name == field)
    return found.default if found.default_factory is dataclasses.MISSING else found.default_factory()


@dataclass(frozen=True)
class SizeMismatch:
    """A size of the output adapter that differs from the data's.

    Attributes:
        option: dotted name of the option: "model.decoder.num_classes".
        value: its value.
        attribute: the attribute of the data module that it is linked to.
        data_value: the value of that attribute.
    """

    option: str
    value: Any
    attribute: str
    data_value: Any


def find_mismatches(values: Values, datamodule: Any) -> list[SizeMismatch]:
    """Return the sizes of the output adapter that differ from the data's.

    Not each of them is an error: a classifier may have more classes than the data.

    Args:
        values: the values of the run, with linked fields filled in.
        datamodule: the data module.
    """
    mismatches = []
    for section, field, attribute in linked_fields(values):
        if section != "model.decoder" or not _has(datamodule, attribute):  # input adapters check the data themselves
            continue
        value = values["model"]["decoder"].get(field)
        try:
            data_value = getattr(datamodule, attribute)
        except Exception:  # a property may need files that the command does not read
            continue
        if isinstance(value, int) and isinstance(data_value, int) and value != data_value:
            mismatches.append(SizeMismatch(f"{section}.{field}", value, attribute, data_value))
    return mismatches


@contextlib.contextmanager
def explained_mismatches(
    values: Values,
    datamodule: Any,
    locate: Callable[[str], str],
    runs_model: bool = True,
    has_run: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Attribute errors within this context to sizes of the output adapter that differ from the data's.

    Args:
        values: the values of the run.
        datamodule: the data module.
        locate: names an option with its source.
        runs_model: the model runs within this context, so that errors about shapes may come from its sizes.
        has_run: returns whether the model has trained on a batch, so that errors have other causes.

    Raises:
        UserError: instead of an error that names the field of a mismatch, or of an error of torch about shapes.
    """
    try:
        yield
    except (UserError, *SHAPE_ERRORS) as error:
        mismatches = [] if has_run() else find_mismatches(values, datamodule)
        named = [each for each in mismatches if each.option.rpartition(".")[2] in str(error)]
        is_about_shapes = isinstance(error, SHAPE_ERRORS) and not isinstance(error, torch.OutOfMemoryError)
        causes = named or (mismatches if runs_model and is_about_shapes else [])
        if not causes:
            raise
        described = "; ".join(
            f"{locate(each.option)}={each.value}: does not fit the data, which has {each.attribute}={each.data_value} "
            "(leave it out to take the data's)"
            for each in causes
        )
        raise UserError(described if named else f"{described}: {' '.join(str(error).split())[:300]}") from error
