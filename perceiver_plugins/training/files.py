"""Reading documents from the user's files: text, JSON, CSV and Parquet, compressed or not.

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
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from perceiver_plugins.training.errors import DataError
from perceiver_registry.errors import near

FORMATS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")

BLOCK = 2**14
"""Bytes of a text file that are read at once; a piece of a document has one or two of these."""


class Piece(NamedTuple):
    """A document, or a piece of one."""

    text: str
    first: bool = True
    last: bool = True


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
    kind, _ = file_format(path)
    readers = {".txt": _read_text, ".parquet": _read_parquet, ".jsonl": _read_json, ".json": _read_json}
    empty = True
    try:
        reader = readers.get(kind, _read_table)
        for piece in reader(path, text_column):
            empty = False
            yield piece
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed data is damaged or ends too early ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if empty:
        raise DataError(f"{path}: the file holds no text (it is empty, or all of its texts are)")


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


def _read_text(path: Path, _: str) -> Iterator[Piece]:
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


def _read_json(path: Path, column: str) -> Iterator[Piece]:
    for place, row in _json_rows(path):
        if not isinstance(row, dict):
            raise DataError(f"{path}, {place}: expected an object with a field {column!r}, got {type(row).__name__}")
        yield from _document(path, place, row, column)


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


def _read_table(path: Path, column: str) -> Iterator[Piece]:
    delimiter = "\t" if file_format(path)[0] == ".tsv" else ","
    csv.field_size_limit(2**31 - 1)  # the default refuses texts of more than 128 KiB
    rows = csv.DictReader((line for _, line in _decoded_lines(path)), delimiter=delimiter, strict=True)
    try:
        for row in rows:
            yield from _document(path, f"line {rows.line_num}", row, column)
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: not a valid table ({error})") from error
    if rows.fieldnames is not None and column not in rows.fieldnames:
        raise DataError(no_column(path, column, rows.fieldnames))


def _read_parquet(path: Path, column: str) -> Iterator[Piece]:
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
        if column not in table.schema_arrow.names:
            raise DataError(no_column(path, column, table.schema_arrow.names))
        for batch in table.iter_batches(batch_size=1000, columns=[column]):
            for text in batch.column(0).to_pylist():
                yield from _document(path, f"column {column!r}", {column: text}, column)


def _document(path: Path, place: str, row: dict[str, Any], column: str) -> Iterator[Piece]:
    if column not in row:
        raise DataError(no_column(path, column, list(row), place))
    text = row[column]
    if text is None or text == "":
        return
    if not isinstance(text, str):
        raise DataError(f"{path}, {place}: {column!r} is not text but {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{path}, {place}: {column!r} holds half of a surrogate pair, which is no character") from error
    yield Piece(text)


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


def no_column(path: Path | str, column: str, columns: Iterable[Any], place: str = "") -> str:
    """What to say where a column is missing."""
    where = f"{path}, {place}" if place else f"{path}"
    return f"{where}: no column {column!r}; text_column must be one of: {', '.join(map(str, columns)) or 'none'}"
