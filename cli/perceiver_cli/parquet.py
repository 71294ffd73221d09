"""Parquet files, written in row groups. pyarrow is optional and imported when a file is written."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, TextIO

from perceiver_cli.notes import note
from perceiver_registry.escaping import ENCODING_ERRORS

ROW_GROUP_BYTES = 2**24
"""Size of the data in a row group, which is kept in memory until it is written. Arbitrary."""

JSON_TYPE = None
"""Type of columns whose values have no common type in Parquet: they are written as JSON."""


def row_groups(items: Iterable[Any], size_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Yield lists of consecutive items of about :data:`ROW_GROUP_BYTES`.

    Args:
        items: the items.
        size_of: function that returns the size of an item in bytes.
    """
    group: list[Any] = []
    size = 0
    for item in items:
        group.append(item)
        size += size_of(item)
        if size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def write_tables(stream: IO[bytes], tables: Iterator[Any], empty: Any) -> None:
    """Write tables as row groups of one file.

    Args:
        stream: the file.
        tables: pyarrow tables of the same schema.
        empty: schema of the file if there are no tables.
    """
    import pyarrow.parquet as pq  # optional

    first = next(tables, None)
    schema = empty if first is None else first.schema
    with pq.ParquetWriter(stream, schema, write_page_checksum=True) as writer:
        for table in itertools.chain([] if first is None else [first], tables):
            writer.write_table(table)


def convert_json_lines(lines: TextIO, stream: IO[bytes], name: str) -> None:
    """Convert JSON objects, one per line, to rows of a Parquet file. Characters that UTF-8 cannot encode are escaped.

    Columns whose values have no common type are written as JSON, which a note reports.

    Args:
        lines: the objects. They are read several times: the types of columns depend on all of them.
        stream: the file.
        name: name of the file, for notes.
    """
    import pyarrow as pa  # optional

    types: dict[str, Any] = {}
    for rows in _read_row_groups(lines):
        for column in dict.fromkeys(itertools.chain.from_iterable(rows)):
            types[column] = _common_type(types.get(column, pa.null()), [row.get(column) for row in rows])
    for rows in _read_row_groups(lines):
        for column, column_type in types.items():
            if column_type is not JSON_TYPE and not _is_storable(rows, column, column_type):
                types[column] = JSON_TYPE
    for column in (column for column, column_type in types.items() if column_type is JSON_TYPE):
        note(f"perceiver: {name}: column {column!r} has values that no type of Parquet has in common: written as JSON")
    groups = _read_row_groups(lines)
    tables = (pa.table({column: _array(rows, column, found) for column, found in types.items()}) for rows in groups)
    write_tables(stream, tables, pa.schema([]))


def _read_row_groups(lines: TextIO) -> Iterator[list[dict[str, Any]]]:
    """Read JSON lines from the start, in lists of the size of a row group."""
    lines.seek(0)
    for group in row_groups(lines, len):
        yield [_encodable(json.loads(line)) for line in group]


def encodable_text(text: str) -> str:
    """Return a text with escapes for characters that UTF-8 cannot encode, such as bytes of file names."""
    return text.encode(errors=ENCODING_ERRORS).decode()


def _encodable(value: Any) -> Any:
    """Apply :func:`encodable_text` to all texts of plain data."""
    if isinstance(value, str):
        return encodable_text(value)
    if isinstance(value, list):
        return [_encodable(each) for each in value]
    if isinstance(value, Mapping):
        return {encodable_text(name): _encodable(each) for name, each in value.items()}
    return value


def _common_type(known: Any, values: Sequence[Any]) -> Any:
    """Return the type of earlier and further values of a column, or :data:`JSON_TYPE`."""
    import pyarrow as pa  # optional

    if known is JSON_TYPE:
        return JSON_TYPE
    with _without_type_errors():
        schemas = [pa.schema([("column", each)]) for each in (known, pa.array(values).type)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    return JSON_TYPE


def _is_storable(rows: Sequence[Mapping[str, Any]], column: str, column_type: Any) -> bool:
    """Return whether a file can store values of a column. It cannot store objects without entries."""
    import pyarrow as pa  # optional

    with _without_type_errors():
        write_tables(io.BytesIO(), iter([pa.table({column: _array(rows, column, column_type)})]), None)
        return True
    return False


def _without_type_errors() -> contextlib.AbstractContextManager[None]:
    """Return a context manager that suppresses errors of pyarrow about types of values."""
    import pyarrow as pa  # optional

    return contextlib.suppress(pa.ArrowException, ValueError, TypeError, OverflowError)


def _array(rows: Sequence[Mapping[str, Any]], column: str, column_type: Any) -> Any:
    """Return a column of rows; None where a row lacks it."""
    import pyarrow as pa  # optional

    values = [row.get(column) for row in rows]
    if column_type is not JSON_TYPE:
        return pa.array(values, column_type)
    return pa.array([None if value is None else json.dumps(value, ensure_ascii=False) for value in values], pa.string())
