"""Rows of table files as inputs of ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from perceiver_plugins.sdk.data.table_rows import Row, read_rows
from perceiver_plugins.sdk.errors import DataError


class TableRow(str):
    """Displayed name of a table row, with the row's values.

    Args:
        name: file and row number, such as ``patients.csv:1``.
        row: location and values by column, or the error that prevented reading.
    """

    row: Row | DataError

    def __new__(cls, name: str, row: Row | DataError) -> TableRow:
        source = super().__new__(cls, name)
        source.row = row
        return source

    def values_by_column(self) -> Row:
        """Return location and values by column.

        Raises:
            DataError: if the row cannot be read.
        """
        if isinstance(self.row, DataError):
            raise self.row
        return self.row


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
            yield TableRow(f"{path}:{number}", row)
        if number == 0:
            raise DataError(f"{path}: no rows")
    except DataError as error:
        yield TableRow(str(path), error)
