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
    """Split inputs of a model into a list of single inputs.

    Args:
        inputs: a text, path or object, or several: an iterable, an array with one input per index of its first axis, or
            a table of pandas, polars or pyarrow with one input per row.

    Raises:
        UserError: if an array may be one image or several, or if a table has unsupported columns.
    """
    if hasattr(inputs, "columns"):
        try:
            rows: list[Any] = as_table(inputs).to_pylist()
        except (ValueError, OverflowError) as error:  # dates beyond the year 9999 overflow
            raise _not_a_table(error) from error
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
    """Convert a table in memory to a table of pyarrow, with the values that a Parquet file would have.

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
        raise _not_a_table(error) from error


def _not_a_table(error: Exception) -> UserError:
    return UserError(f"inputs: not a table that can be read ({' '.join(str(error).split())})")


def sources_of(reader: Any, inputs: Sequence[Any], names: str) -> list[str]:
    """Convert inputs to sources of a reader: strings and paths to strings, other objects by ``reader.source_of``.

    Args:
        reader: the model's reader.
        inputs: the inputs.
        names: format string of the names of objects, by index: ``inputs[{}]``.

    Raises:
        UserError: if the reader does not read such objects.
    """
    return [
        os.fspath(each) if isinstance(each, str | os.PathLike) else reader.source_of(each, names.format(index))
        for index, each in enumerate(inputs)
    ]
