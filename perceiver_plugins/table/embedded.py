"""Columns of a table with an input adapter of their own: texts and images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_plugins.composite.config import is_modality_name
from perceiver_plugins.sdk.data.column_reader import Cell, ColumnOptions, ColumnReader
from perceiver_plugins.table.config import TABLE
from perceiver_registry import AdapterSpec, Entry, UserError, registry
from perceiver_registry.configs import ADAPTER_KEY

RESERVED_NAMES = (TABLE, "inputs", "category_ids", "labels")
"""Batch entries and modalities of tables, which are not names of other modalities."""


def modality_names(columns: Iterable[str]) -> dict[str, str]:
    """Return a name for the modality of each column: its own, with _ for all but ASCII letters and digits."""
    names: dict[str, str] = {}
    for column in columns:
        name = re.sub(r"\W", "_", column, flags=re.ASCII)
        name = name if name.isidentifier() else f"column_{name}"
        while not is_modality_name(name) or name in RESERVED_NAMES or name in names.values():
            name += "_"
        names[column] = name
    return names


def adapter_of_kind(kind: str) -> Entry[AdapterSpec]:
    """Return the input adapter that embeds columns of a kind by default.

    Raises:
        UserError: if none is installed, or several are.
    """
    found = [entry for entry in registry().entries("input") if kind in entry.spec.column_readers]
    if len(found) != 1:
        problem = f"{len(found)} input adapters read" if found else "no installed input adapter reads"
        names = f": {', '.join(entry.full_name for entry in found)}" if found else ""
        raise UserError(f"columns of {kind}s: {problem} them{names} (feature_columns leaves out such columns)")
    return found[0]


def fit_reader(kind: str, cells: Sequence[Cell], options: ColumnOptions) -> ColumnReader:
    """Create the reader of a column of a new model.

    Args:
        kind: kind of the column.
        cells: cells of the training rows.
        options: options of the data module.

    Raises:
        UserError: if the cells cannot be read.
    """
    reader: ColumnReader = adapter_of_kind(kind).resolve("column_readers", kind).fit(cells, options)
    return reader


def describe_reader(kind: str, reader: ColumnReader) -> dict[str, Any]:
    """Return plain data from which :func:`restore_reader` creates a reader."""
    return {ADAPTER_KEY: adapter_of_kind(kind).full_name, **reader.description()}


def restore_reader(column: str, kind: str, described: Mapping[str, Any]) -> ColumnReader:
    """Create a column reader from the result of :func:`describe_reader`.

    Raises:
        UserError: if it is invalid.
        UnknownNameError: if its adapter is not installed.
    """
    problem = f"checkpoint: columns: {column!r} ({kind})"
    adapter = registry().get("input", str(described.get(ADAPTER_KEY)))
    if kind not in adapter.spec.column_readers:
        raise UserError(f"{problem}: input adapter {adapter.name!r} reads no such columns")
    description = {name: value for name, value in described.items() if name != ADAPTER_KEY}
    try:
        reader: ColumnReader = adapter.resolve("column_readers", kind).from_description(description)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{problem}: invalid description of its reader") from error
    return reader


def report_cells(readers: Mapping[str, ColumnReader]) -> list[str]:
    """Return and clear the notes of the readers of columns, such as those about cut texts."""
    return [f"the column {name!r}: {line}" for name, reader in readers.items() for line in reader.report()]


def object_array(values: Sequence[Any]) -> np.ndarray:
    """Return an array (rows,) of objects, which are not converted."""
    return np.fromiter(values, dtype=object, count=len(values))
