"""Reading the user's files: documents of text, and rows of JSON, CSV and Parquet, compressed or not.

What is wrong with a file is reported in one line that names the file and the place in it.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import glob
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from perceiver_plugins.training.errors import DataError
from perceiver_registry.errors import near

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
FORMATS = (".txt", *TABLES)
COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")

BLOCK = 2**14
"""Bytes of a text file that are read at once; a piece of a document has one or two of these."""


class Piece(NamedTuple):
    """A document, or a piece of one."""

    text: str
    first: bool = True
    last: bool = True


Row = tuple[str, Mapping[str, Any]]
"""Where a row of a table is ("train.csv, line 3"), for what there is to say of it, and its values by column."""


def find_files(paths: str | Sequence[str], flag: str) -> list[Path]:
    """The files that are meant by the value of a flag.

    Args:
        paths: A file, a folder (all files of a known format in it and below), a pattern, or a list of these.
        flag: What to call the value in an error.

    Returns:
        The files in their order, those of a folder or pattern sorted by name.

    Raises:
        DataError: If one of them means no file.
    """
    found: list[Path] = []
    for name in [paths] if isinstance(paths, str) else paths:
        path = Path(name).expanduser()
        if path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file() and known_format(file)]
            if not files:
                raise DataError(f"{flag}: no {', '.join(FORMATS)} file (compressed or not) in the folder {path}")
        elif path.is_file():
            files = [path]
        elif glob.has_magic(name):
            files = [Path(file) for file in sorted(glob.glob(str(path), recursive=True)) if Path(file).is_file()]
            if not files:
                raise DataError(f"{flag}: no file matches {name!r}")
        else:
            siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
            hint = f" ({near(path.name, siblings)})" if siblings and len(siblings) <= 1000 else ""
            raise DataError(f"{flag}: there is no file {path}{hint}")
        found += [file for file in files if file not in found]
    if not found:
        raise DataError(f"{flag}: no file given")
    return found


def file_format(path: Path) -> tuple[str, str]:
    """(format, compression) by the file's name: (".jsonl", ".gz"). Any other ending counts as text."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes and suffixes[-1] in FORMATS else ".txt"), compression


def known_format(path: Path) -> bool:
    """Whether the file's name, which must not be hidden, says one of the known formats."""
    stem = path.name.lower()
    for compression in COMPRESSIONS:
        stem = stem.removesuffix(compression)
    return stem.endswith(FORMATS) and not stem.startswith(".")


def read_documents(path: Path, text_column: str = "text") -> Iterator[Piece]:
    """The documents of a file: each row of a table, or the whole of a text file (in pieces).

    Empty and missing (null) texts are left out.

    Args:
        path: The file.
        text_column: Name of the column with the text, where the format has columns.

    Raises:
        DataError: If the file is missing, empty, damaged, binary or not UTF-8, or has no such column.
    """
    if is_table(path):
        rows = read_rows(path, {text_column: "text_column"})
        texts = (text_of(row, text_column, place) for place, row in rows)
        pieces: Iterator[Piece] = (Piece(text) for text in texts if text)
    else:
        pieces = _read_text(path)
    empty = True
    with _readable(path):
        for piece in pieces:
            empty = False
            yield piece
    if empty:
        raise DataError(f"{path}: the file holds no text (it is empty, or all of its texts are)")


def is_table(path: Path) -> bool:
    """Whether the file's name says a format that has rows and columns."""
    return file_format(path)[0] in TABLES


def read_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """The rows of a table: JSON lines, a JSON list of objects, CSV, TSV or Parquet.

    Args:
        path: The file.
        columns: The columns that rows must have, each with the flag that names it, for errors. None: all that there
            are.

    Returns:
        For each row its place, which begins with the file's name, and its values by column, those of other columns
        perhaps among them. Values are as the format has them: CSV has text only, and an empty one where there is no
        value, or None where the line ends before it; the others have null (None), numbers and lists.

    Raises:
        DataError: If the file is missing, damaged, no table, or not UTF-8, or lacks a column.
    """
    if not is_table(path):
        raise DataError(f"{path}: not a table; columns are read from {', '.join(TABLES)} files, compressed or not")
    readers = {".parquet": _read_parquet, ".jsonl": _read_json, ".json": _read_json}
    with _readable(path):
        yield from readers.get(file_format(path)[0], _read_table)(path, columns)


def text_of(row: Mapping[str, Any], column: str, place: str) -> str:
    """The text in a column of a row; "" where it is missing (null).

    Raises:
        DataError: If it is not text.
    """
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DataError(f"{place}: {column!r} is not text but {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: {column!r} holds half of a surrogate pair, which is no character") from error
    return text


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading its bytes, decompressed."""
    _, compression = file_format(path)
    if compression == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if compression == ".xz":
        return lzma.open(path)
    if compression == ".bz2":
        return bz2.open(path)
    if compression == ".zst":
        if not pa.Codec.is_available("zstd"):
            raise DataError(f"{path}: this installation of pyarrow cannot read .zst; decompress the file first")
        return cast(IO[bytes], io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says of which file it is that it cannot be read."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed data is damaged or ends too early ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def _read_text(path: Path) -> Iterator[Piece]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    with open_binary(path) as file:
        position, held, first = 0, "", True
        while block := file.read(BLOCK):
            if position == 0:
                _refuse_binary(path, block)
                start = len(codecs.BOM_UTF8) if block.startswith(codecs.BOM_UTF8) else 0
            else:
                start = 0
            try:
                text = held + decoder.decode(block[start:])
            except UnicodeDecodeError as error:
                # The decoder had kept the beginning of a character that the block before ended in.
                offset = position + start + error.start - (len(error.object) - len(block[start:]))
                raise DataError(_not_utf8(path, f"at byte {offset}", error.object[error.start])) from error
            position += len(block)
            # A piece ends with a line, or else with a word. Something is always kept back, as the last piece is marked.
            end = len(text) - 1
            cut = text.rfind("\n", 0, end) + 1 or text.rfind(" ", 0, end) + 1 or end
            if len(text) <= BLOCK:
                cut = 0
            elif cut:
                yield Piece(text[:cut], first, False)
                first = False
            held = text[cut:]
        try:
            held += decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DataError(
                _not_utf8(path, f"at byte {position - len(error.object)} (the end)", error.object[0])
            ) from error
        if held and not (first and not held.strip()):
            yield Piece(held, first, True)


def _read_json(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    for place, row in _json_rows(path):
        if not isinstance(row, dict):
            fields = f" with {', '.join(map(repr, columns))}" if columns else ""
            raise DataError(f"{path}, {place}: expected an object{fields}, got {type(row).__name__}")
        require_columns(f"{path}, {place}", columns, row)
        yield f"{path}, {place}", row


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """(place in the file, value) of each row of JSON lines, or of one JSON list."""
    lines = _decoded_lines(path)
    for number, line in lines:
        if not line.strip():
            continue
        if line.lstrip().startswith("["):
            rows = _parse_json(path, f"line {number}", line + "".join(rest for _, rest in lines))
            yield from ((f"item {index + 1}", row) for index, row in enumerate(rows))
            return
        yield f"line {number}", _parse_json(path, f"line {number}", line)


def _parse_json(path: Path, place: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, {place}: not JSON ({error.msg}, column {error.colno}); expected one object per line, or one list"
        ) from error


def _read_table(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    delimiter = "\t" if file_format(path)[0] == ".tsv" else ","
    csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 128 KiB
    rows = csv.DictReader((line for _, line in _decoded_lines(path)), delimiter=delimiter, strict=True)
    try:
        if rows.fieldnames is not None:
            require_columns(str(path), columns, rows.fieldnames)
        for row in rows:
            yield f"{path}, line {rows.line_num}", row
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: not a valid table ({error})") from error


def _read_parquet(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    source: Any = path
    if file_format(path)[1]:
        with open_binary(path) as file:  # a Parquet file is read from its end, which compressed data is not
            source = io.BytesIO(file.read())
    elif path.stat().st_size == 0:
        return
    try:
        table = pq.ParquetFile(source)
    except pa.ArrowException as error:
        raise DataError(f"{path}: not a Parquet file, or damaged") from error
    with table:
        require_columns(str(path), columns, table.schema_arrow.names)
        batches = table.iter_batches(batch_size=1000, columns=list(columns) or None)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((f"{path}, row {number}", row) for number, row in enumerate(rows, 1))


def _decoded_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line, line ends included."""
    with open_binary(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1:
                _refuse_binary(path, line)
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                where = f"at line {number}, byte {error.start + 1} of it"
                raise DataError(_not_utf8(path, where, line[error.start])) from error


def _refuse_binary(path: Path, block: bytes) -> None:
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: UTF-16 text, not UTF-8; convert it (iconv -f UTF-16 -t UTF-8)")
    if (offset := block.find(b"\0")) >= 0:
        raise DataError(f"{path}: a binary file (zero byte at byte {offset}), expected UTF-8 text")


def _not_utf8(path: Path, where: str, byte: int) -> str:
    return f"{path}: not UTF-8 text: bad byte 0x{byte:02x} {where}; convert the file to UTF-8 (iconv -t UTF-8)"


def require_columns(where: str, columns: Mapping[str, str], found: Iterable[Any]) -> None:
    """Raises DataError unless each of the columns, given with the flag that names it, was found."""
    found = [str(name) for name in found]
    for column, flag in columns.items():
        if column not in found:
            hint = near(column, found)
            hint = f" ({hint})" if hint.startswith("did") else ""
            raise DataError(f"{where}: no column {column!r}; {flag} must be one of: {', '.join(found) or 'none'}{hint}")
