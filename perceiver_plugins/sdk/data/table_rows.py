"""Rows of tables: delimited text, JSON and Parquet.

Ambiguous rows and columns are rejected with file and line. Empty lines and columns without a name are ignored.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_plugins.sdk.data.cells import kind_of
from perceiver_plugins.sdk.data.opening import TABLES, decoded_lines, file_format, is_table, open_binary, readable
from perceiver_plugins.sdk.errors import DataError, one_line
from perceiver_registry.errors import UserError, near, some_of

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Row = tuple[str, Mapping[str, Any]]
"""Location of a row ("train.csv, line 3"), for messages, and its values by column."""

DELIMITERS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
"""Common delimiters, with their names in messages."""

SPELLED_TABS = {"\\t": "\t", "tab": "\t"}
"""Values of flags that mean a tab, which is hard to type on a command line."""

DELIMITER_OF = {".csv": ",", ".tsv": "\t"}
"""Default delimiters of formats."""


def read_rows(path: Path, columns: Mapping[str, str], delimiter: str | None = None) -> Iterator[Row]:
    """Read the rows of a table: JSON lines, a JSON list of objects, CSV, TSV or Parquet.

    Args:
        path: The file.
        columns: Required columns, each with its flag for messages. Empty: all columns of the file.
        delimiter: Delimiter of .csv and .tsv files. None: a comma, or a tab in .tsv files.

    Yields:
        Location of each row, which begins with the file's name, and its values by column, possibly with other columns.
        Values have the types of the format: CSV has texts, "" if missing; the others have null (None), numbers and
        lists.

    Raises:
        DataError: If the file is missing, damaged, not a table, or not UTF-8, lacks a column or has one twice, or if
            the number of values of a row differs from the header.
    """
    if not is_table(path):
        raise DataError(f"{path}: not a table (columns are read from {', '.join(TABLES)} files, compressed or not)")
    kind = file_format(path)[0]
    with readable(path):
        if kind == ".parquet":
            yield from _read_parquet(path, columns)
        elif kind in DELIMITER_OF:
            yield from _read_delimited(path, columns, delimiter or DELIMITER_OF[kind])
        else:
            yield from _read_json(path, columns)


def check_delimiter(delimiter: str | None) -> str | None:
    r"""Return the delimiter that a flag names. \t and "tab" mean a tab.

    Raises:
        UserError: If it is not a single character, or cannot separate columns.
    """
    if delimiter is None:
        return None
    delimiter = SPELLED_TABS.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n\0':
        raise UserError(f"delimiter={delimiter!r} must be one character, such as ',' or ';' or tab")
    return delimiter


def column_names(path: Path, delimiter: str | None = None) -> tuple[list[str], list[str]]:
    """Return the columns of a table by its header or first row: data columns, and index columns.

    Index columns are those that pandas writes: without a name, "Unnamed: 0", or an index in a Parquet file's metadata.

    Raises:
        DataError: As :func:`read_rows`, or if there is no row.
    """
    _, first = next(read_rows(path, {}, delimiter), (None, None))
    if first is None:
        raise DataError(f"{path}: no rows")
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
    """Return the columns of a Parquet file, and the index columns in the metadata of pandas."""
    with readable(path), _open_parquet(path) as table:
        names, stored = table.schema_arrow.names, table.schema_arrow.pandas_metadata or {}
    return names, {name for name in stored.get("index_columns", ()) if isinstance(name, str)}


def dictionary_columns(path: Path) -> frozenset[str]:
    """Return the columns that a Parquet file stores as categories, for example from pandas; empty for other formats."""
    if file_format(path)[0] != ".parquet":
        return frozenset()
    import pyarrow as pa  # optional

    with readable(path), _open_parquet(path) as table:
        schema = table.schema_arrow
        # Parquet keeps the type of categories that are texts; those of other types are in the metadata of pandas.
        described = (schema.pandas_metadata or {}).get("columns", ())
        names = [each.get("name") for each in described if each.get("pandas_type") == "categorical"]
        return frozenset([*names, *(field.name for field in schema if pa.types.is_dictionary(field.type))])


def require_columns(where: str, columns: Mapping[str, str], found: Iterable[Any], hint: str = "") -> None:
    """Raise DataError if a required column is missing.

    Args:
        where: The file, for messages.
        columns: Required columns, each with its flag.
        found: Names of the existing columns.
        hint: The cause, if known; otherwise the message names the most similar column.
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
        raise DataError(f"{where}: the column {twice[0]!r} occurs more than once (rename or remove one of them)")


# Delimited text


def _read_delimited(path: Path, columns: Mapping[str, str], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # the default limit is 128 KiB
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
    """Return the indices of columns with a name. Spreadsheets add empty columns, pandas writes its index first."""
    named = [index for index, name in enumerate(header) if name.strip()]
    names = [header[index] for index in named]
    _refuse_duplicates(str(path), names)
    hint = _delimiter_hint(header, columns, delimiter)
    if hint and not columns:
        raise DataError(f"{path}: the header is one column, {header[0]!r:.80} ({hint})")
    require_columns(str(path), columns, names, hint)
    return named


def _delimiter_hint(header: Sequence[str], columns: Mapping[str, str], delimiter: str) -> str:
    """Suggest another delimiter for a header of one column; "" if the delimiter seems right."""
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
            f"(put quotes around values that contain {name})"
        )
    return f"{where}: {len(values)} values, fewer than the {len(header)} columns of the header"


def _refuse_unnamed(where: str, values: Sequence[str], named: Sequence[int]) -> None:
    """Raise DataError if a row has a value to the right of the last named column."""
    last = named[-1] if named else -1
    beyond = [value for value in values[last + 1 :] if value.strip()]
    if beyond:
        raise DataError(f"{where}: {beyond[0]!r:.40} is in a column without a name (name it, or remove the value)")


def _csv_reason(error: csv.Error, begin: int, end: int) -> str:
    if "unexpected end of data" in str(error):
        return f"a quote opened in this row is not closed up to line {end}"
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
    """Read location and value of each row of JSON lines, or of a JSON list."""
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
            f"{path}, {location}: not JSON ({error.msg}, column {error.colno}; expected one object per line, or a list)"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}, {location}: lists or objects are nested too deeply") from error
    except _DuplicateKeyError as error:
        raise DataError(f"{path}, {location}: {error}") from error
    except ValueError as error:
        raise DataError(f"{path}, {location}: an integer has more than 4300 digits (write it as text)") from error


class _DuplicateKeyError(ValueError):
    """Error of a duplicate key in an object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Create an object, and reject duplicate keys, of which json would keep the last value."""
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise _DuplicateKeyError(f"the key {twice!r} occurs more than once in an object (rename or remove one of them)")
    return values


# Parquet


def _open_parquet(path: Path) -> pq.ParquetFile:
    import pyarrow as pa  # optional
    import pyarrow.parquet as pq

    source: Any = path
    if file_format(path)[1]:
        with open_binary(path) as file:  # Parquet files need random access
            source = io.BytesIO(file.read())
    try:
        return pq.ParquetFile(source)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file, or damaged") from error


def _read_parquet(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    if path.stat().st_size == 0:
        return
    import pyarrow as pa  # optional

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
        except (pa.ArrowException, ValueError, OverflowError) as error:  # dates beyond the year 9999 overflow
            raise DataError(f"{path}, after row {number}: cannot be read ({one_line(error)})") from error
