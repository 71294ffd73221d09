"""Rows of table files as inputs of ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from perceiver_plugins.sdk.data.table_rows import Row, read_rows, require_columns
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.reader import InMemory, not_in_memory


class TableRow(InMemory):
    """Displayed name of a table row, with the row's values.

    Args:
        name: file and row number, such as ``patients.csv:1``.
        value: location and values by column, or the error that prevented reading.

    Attributes:
        folder: folder that relative paths in the row are relative to: that of its file, or the current folder.
    """

    value: Row | DataError
    folder: Path = Path()

    def values_by_column(self) -> Row:
        """Return location and values by column.

        Raises:
            DataError: if the row cannot be read.
        """
        if isinstance(self.value, DataError):
            raise self.value
        return self.value


def row_in_memory(value: Any, name: str, columns: Mapping[str, str]) -> TableRow:
    """Convert a table row in memory to a source.

    Args:
        value: values by column.
        name: name of the row.
        columns: required columns, each with its description for messages.

    Raises:
        UserError: if ``value`` is not a mapping, or lacks a column.
    """
    if not isinstance(value, Mapping):
        raise not_in_memory(name, value, "a row of a table (a dict)")
    require_columns(name, columns, value)
    return TableRow(name, (name, value))


def kept_columns(data: Mapping[str, Any]) -> dict[str, str]:
    """Return the columns of a reader's option ``keep_columns``, each with the flag's name for messages."""
    return dict.fromkeys(data.get("keep_columns") or (), "keep_columns")


def table_inputs(path: Path, columns: Mapping[str, str], delimiter: str | None) -> Iterator[TableRow]:
    """Yield the rows of a table file. An error is yielded as the last row, so that other inputs are still predicted.

    Args:
        path: the file.
        columns: required columns, each with its description for messages.
        delimiter: delimiter of .csv and .tsv files. None: a comma, or a tab in .tsv files.
    """
    number = 0
    try:
        for number, row in enumerate(read_rows(path, columns, delimiter), start=1):
            source = TableRow(f"{path}:{number}", row)
            source.folder = path.parent
            yield source
        if number == 0:
            raise DataError(f"{path}: no rows")
    except DataError as error:
        yield TableRow(str(path), error)
