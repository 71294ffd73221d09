"""Inputs of models in Python: texts, paths and objects in memory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perceiver_registry import UserError
from perceiver_registry.extras import missing_requirement

if TYPE_CHECKING:
    import pyarrow as pa

MAX_CHANNELS = 4
"""Largest number of channels of an image."""


def single_inputs(inputs: Any) -> list[Any]:
    """Return the inputs of a model one by one.

    Args:
        inputs: a text, path or object, or several: an iterable, an array with one input per index of its first axis, or
            a table of pandas, polars or pyarrow with one input per row.

    Raises:
        UserError: if it is an array that may be one image or several, or a table with unsupported columns.
    """
    if hasattr(inputs, "columns"):
        rows: list[Any] = as_table(inputs).to_pylist()
        return rows
    shape: Any = getattr(inputs, "shape", None)
    is_single = isinstance(inputs, str | os.PathLike | bytes | Mapping) or not isinstance(inputs, Iterable)
    if is_single or shape == ():
        return [inputs]
    if shape is not None and len(shape) == 3 and shape[2] <= MAX_CHANNELS:
        raise UserError(
            f"inputs: an array of shape {tuple(shape)} may be one image or several (give [image], or several of shape "
            "(images, height, width, channels))"
        )
    return list(inputs)


def as_table(table: Any) -> pa.Table:
    """Convert a table in memory to one of pyarrow, with the values that its Parquet file would have.

    Args:
        table: table of pandas, polars or pyarrow, or arrays by name of column.

    Raises:
        UserError: if a column has values of several types, or two columns have the same name.
    """
    try:
        import pyarrow as pa  # optional

        return pa.table(table)
    except ImportError as error:
        raise UserError(f"inputs: a table {missing_requirement(error) or error}") from error
    except (ValueError, TypeError, KeyError) as error:  # those of pyarrow are subclasses
        raise UserError(f"inputs: not a table that can be read ({' '.join(str(error).split())})") from error


def sources_of(reader: Any, inputs: Sequence[Any], names: str) -> list[str]:
    """Return the inputs for a reader: strings and paths as strings, and the reader's inputs for other objects.

    Args:
        reader: the model's reader.
        inputs: the inputs.
        names: format of their names by index: ``inputs[{}]``.

    Raises:
        UserError: if the reader does not read such objects.
    """
    return [
        os.fspath(each) if isinstance(each, str | os.PathLike) else reader.source_of(each, names.format(index))
        for index, each in enumerate(inputs)
    ]
