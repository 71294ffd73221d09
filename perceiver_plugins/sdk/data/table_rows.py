"""Rows of tables: delimited text, JSON and Parquet.

Every reader of the project gets its rows here. What makes a row or a column ambiguous is refused, with file and line;
empty lines and columns without a name are no data.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from perceiver_plugins.sdk.data.cells import kind_of
from perceiver_plugins.sdk.data.opening import TABLES, decoded_lines, file_format, is_table, open_binary, readable
from perceiver_plugins.sdk.errors import DataError, one_line
from perceiver_registry.errors import UserError, near, some_of

Row = tuple[str, Mapping[str, Any]]
"""Location of a row ("train.csv, line 3"), for messages, and its values by column."""

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
"""Usual delimiters of columns, with their names in messages."""


DELIMITER_OF = {".csv": ",", ".tsv": "\t"}
"""Delimiters of the formats where no flag names another one."""


def read_rows(path: Path, columns: Mapping[str, str], delimiter: str | None = None) -> Iterator[Row]:
    """The rows of a table: JSON lines, a JSON list of objects, CSV, TSV or Parquet.

    Args:
        path: The file.
        columns: The columns that rows must have, each with the flag that names it, for errors. None: all that there
            are.
        delimiter: Character between the columns of .csv and .tsv files. None: a comma, or a tab in .tsv files.

    Returns:
        For each row its location, which begins with the file's name, and its values by column, those of other columns
        perhaps among them. Values are as the format has them: CSV has text only, and an empty one where there is no
        value; the others have null (None), numbers and lists.

    Raises:
        DataError: If the file is missing, damaged, no table, or not UTF-8, lacks a column or has one twice, or if a
            row has more or fewer values than the header has names.
    """
    if not is_table(path):
        raise DataError(f"{path}: not a table; columns are read from {', '.join(TABLES)} files, compressed or not")
    kind = file_format(path)[0]
    with readable(path):
        if kind == ".parquet":
            yield from _read_parquet(path, columns)
        elif kind in DELIMITER_OF:
            yield from _read_delimited(path, columns, delimiter or DELIMITER_OF[kind])
        else:
            yield from _read_json(path, columns)


def check_delimiter(delimiter: str | None) -> str | None:
    r"""The delimiter that a flag names, in which \t and "tab" mean a tab.

    Raises:
        UserError: If it is not one character, or one that cannot separate columns.
    """
    if delimiter is None:
        return None
    delimiter = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UserError(f"delimiter={delimiter!r} must be one character, such as ',' or ';' or tab")
    return delimiter


def column_names(path: Path, delimiter: str | None = None) -> tuple[list[str], list[str]]:
    """The columns of a table by its header or first row: those with data, and those that hold a row's index.

    An index is a column that pandas wrote for it: one without a name, "Unnamed: 0", or one that a Parquet file's
    metadata calls an index.

    Raises:
        DataError: As :func:`read_rows`, or if there is no row.
    """
    _, first = next(read_rows(path, {}, delimiter), (None, None))
    if first is None:
        raise DataError(f"{path}: the file holds no row")
    kind = file_format(path)[0]
    if kind in DELIMITER_OF:
        names = _header(path, delimiter or DELIMITER_OF[kind])
        index = {name for name in names if not name.strip() or re.fullmatch(r"Unnamed: \d+", name)}
    elif kind == ".parquet":
        names, index = _parquet_columns(path)
    else:
        names, index = list(first), set()
    return [name for name in names if name not in index], [name for name in names if name in index]


def _parquet_columns(path: Path) -> tuple[list[str], set[str]]:
    """The columns of a Parquet file, and those that pandas' metadata calls an index."""
    with readable(path), _open_parquet(path) as table:
        names, stored = table.schema_arrow.names, table.schema_arrow.pandas_metadata or {}
    return names, {name for name in stored.get("index_columns", ()) if isinstance(name, str)}


def require_columns(where: str, columns: Mapping[str, str], found: Iterable[Any], hint: str = "") -> None:
    """Raise DataError unless each of the columns, given with the flag that names it, was found.

    Args:
        where: The file, for messages.
        columns: The columns.
        found: The names that there are.
        hint: The cause, where it is known; otherwise the message names the nearest column.
    """
    found = [str(name) for name in found]
    for column, flag in columns.items():
        if column not in found:
            hint = hint or near(column, found)
            hint = f" ({hint})" if hint.startswith(("did", "delimiter")) else ""
            raise DataError(f"{where}: no column {column!r}; {flag} must be one of: {some_of(found)}{hint}")


def _refuse_duplicates(where: str, names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where}: the column {twice[0]!r} occurs more than once; rename or remove one of them")


# Delimited text


def _read_delimited(path: Path, columns: Mapping[str, str], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 128 KiB
    lines = csv.reader(decoded_lines(path), delimiter=delimiter, strict=True)
    begin = 1
    try:
        header = next((values for values in lines if values), None)
        if header is None:
            return
        named = _named_columns(path, header, columns, delimiter)
        names, width = [header[index] for index in named], len(header)
        whole = len(named) == width
        begin = lines.line_num + 1
        for values in lines:
            if values:  # an empty line is not a row
                if len(values) != width:
                    raise DataError(_wrong_width(f"{path}, line {begin}", values, header, delimiter))
                row = dict(zip(names, values if whole else [values[index] for index in named], strict=True))
                if not whole:
                    _refuse_unnamed(f"{path}, line {begin}", values, named)
                yield f"{path}, line {begin}", row
            begin = lines.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {begin}: not a valid table ({_csv_reason(error, begin, lines.line_num)})"
        ) from error


def _header(path: Path, delimiter: str) -> list[str]:
    with readable(path):
        lines = csv.reader(decoded_lines(path), delimiter=delimiter, strict=True)
        return next((values for values in lines if values), [])


def _named_columns(path: Path, header: Sequence[str], columns: Mapping[str, str], delimiter: str) -> list[int]:
    """The indices of the columns with a name. Spreadsheets add columns without one, pandas puts its index first."""
    named = [index for index, name in enumerate(header) if name.strip()]
    names = [header[index] for index in named]
    _refuse_duplicates(str(path), names)
    hint = _delimiter_hint(header, columns, delimiter)
    if hint and not columns:
        raise DataError(f"{path}: the header is one column, {header[0]!r:.80} ({hint})")
    require_columns(str(path), columns, names, hint)
    return named


def _delimiter_hint(header: Sequence[str], columns: Mapping[str, str], delimiter: str) -> str:
    """The delimiter that a header of one column seems to have; "" if it seems right as it is."""
    if len(header) > 1 or header[0] in columns:
        return ""
    other = next((each for each in DELIMITERS if each != delimiter and each in header[0]), None)
    if other is None:
        return ""
    return f"delimiter={DELIMITERS[other]} reads the header as {header[0].count(other) + 1} columns"


def _wrong_width(where: str, values: Sequence[str], header: Sequence[str], delimiter: str) -> str:
    name = DELIMITERS.get(delimiter, repr(delimiter))
    if len(values) > len(header):
        return (
            f"{where}: {len(values)} values, more than the {len(header)} columns of the header "
            f"(put quotes around a value that has {name} in it)"
        )
    return f"{where}: {len(values)} values, fewer than the {len(header)} columns of the header"


def _refuse_unnamed(where: str, values: Sequence[str], named: Sequence[int]) -> None:
    """Raise DataError if there is a value right of the last column with a name."""
    last = named[-1] if named else -1
    beyond = [value for value in values[last + 1 :] if value.strip()]
    if beyond:
        raise DataError(f"{where}: {beyond[0]!r:.40} is in a column without a name (name it, or remove the value)")


def _csv_reason(error: csv.Error, begin: int, end: int) -> str:
    if "unexpected end of data" in str(error):
        return f"a quote that is opened in this row is not closed up to line {end}"
    return f"{error}, line {end}" if end > begin else str(error)


# JSON


def _read_json(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    for location, row in _json_rows(path):
        if not isinstance(row, dict):
            fields = f" with {', '.join(map(repr, columns))}" if columns else ""
            raise DataError(f"{path}, {location}: expected an object{fields}, got {kind_of(row)}")
        require_columns(f"{path}, {location}", columns, row)
        yield f"{path}, {location}", row


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(location in the file, value) of each row of JSON lines, or of one JSON list."""
    lines = enumerate(decoded_lines(path), 1)
    for number, line in lines:
        if not line.strip():
            continue
        if line.lstrip().startswith("["):
            rows = _parse_json(path, f"line {number}", line + "".join(rest for _, rest in lines))
            yield from ((f"item {index + 1}", row) for index, row in enumerate(rows))
            return
        yield f"line {number}", _parse_json(path, f"line {number}", line)


def _parse_json(path: Path, location: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, {location}: not JSON ({error.msg}, column {error.colno}); expected one object per line, "
            "or one list"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}, {location}: lists or objects are nested too deeply") from error
    except _DuplicateKeyError as error:
        raise DataError(f"{path}, {location}: {error}") from error
    except ValueError as error:
        raise DataError(f"{path}, {location}: a whole number has more than 4300 digits (write it as text)") from error


class _DuplicateKeyError(ValueError):
    """A key occurs twice in an object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; json itself keeps the last of several values of a key."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _DuplicateKeyError(f"the key {twice!r} occurs more than once in an object; rename or remove one of them")
    return values


# Parquet


def _open_parquet(path: Path) -> pq.ParquetFile:
    source: Any = path
    if file_format(path)[1]:
        with open_binary(path) as file:  # a Parquet file is read from its end, which compressed data is not
            source = io.BytesIO(file.read())
    try:
        return pq.ParquetFile(source)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file, or damaged") from error


def _read_parquet(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    if path.stat().st_size == 0:
        return
    with _open_parquet(path) as table:
        names = table.schema_arrow.names
        _refuse_duplicates(str(path), names)
        require_columns(str(path), columns, names)
        number = 0
        try:
            for batch in table.iter_batches(batch_size=1000, columns=list(columns) or None):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
        except (pa.ArrowException, ValueError) as error:
            raise DataError(f"{path}, after row {number}: cannot be read ({one_line(error)})") from error
