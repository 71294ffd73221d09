"""Parquet files, written in row groups. pyarrow is optional and imported when a file is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from perceiver_registry.escaping import ENCODING_ERRORS

ROW_GROUP_BYTES = 2**24
"""Size of the data in a row group, which is kept in memory until it is written. Arbitrary."""


def row_groups(items: Iterable[Any], size_of: Callable[[Any], int]) -> Iterator[list[Any]]:
    """Yield lists of consecutive items of about :data:`ROW_GROUP_BYTES`.

    Args:
        items: the items.
        size_of: returns the bytes of an item.
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


def encodable_text(text: str) -> str:
    """Return a text with escapes for characters that UTF-8 cannot encode, such as bytes of file names."""
    return text.encode(errors=ENCODING_ERRORS).decode()
