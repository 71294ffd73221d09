"""Opening of data files: formats by suffix, decompression, validation of UTF-8."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from perceiver_plugins.sdk.errors import DataError

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
FORMATS = (".txt", *TABLES)
COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")


def file_format(path: Path) -> tuple[str, str]:
    """Return format and compression of a file by its suffixes: (".jsonl", ".gz"). Unknown formats are text."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes and suffixes[-1] in FORMATS else ".txt"), compression


def is_table(path: Path) -> bool:
    """Check whether the suffix of a file is a format with rows and columns."""
    return file_format(path)[0] in TABLES


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading in binary mode, decompressed."""
    _, compression = file_format(path)
    if compression == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if compression == ".xz":
        return lzma.open(path)
    if compression == ".bz2":
        return bz2.open(path)
    if compression == ".zst":
        import pyarrow as pa  # optional

        if not pa.Codec.is_available("zstd"):
            raise DataError(f"{path}: this installation of pyarrow cannot read .zst (decompress the file first)")
        return cast(IO[bytes], io.BufferedReader(pa.input_stream(str(path), compression="zstd")))
    return path.open("rb")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Convert errors of the operating system and of decompression to DataErrors that name the file."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed data is damaged or truncated ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def decoded_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file with their line ends: \n, \r\n, \r or a mixture.

    Raises:
        DataError: If a line is not UTF-8 or contains a zero byte.
    """
    with open_binary(path) as file:
        refuse_utf16(path, file.read(4))
    with open_binary(path) as file:
        # newline="" splits at all three line ends and preserves them, as the csv module requires. Invalid bytes become
        # lone surrogates, which are then reported with their line.
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise DataError(f"{path}, line {number}: a zero byte, as in a binary file; expected UTF-8 text")
            if not line.isascii():
                _refuse_bad_bytes(path, number, line)
            yield line


def _refuse_bad_bytes(path: Path, number: int, line: str) -> None:
    try:
        line.encode()
    except UnicodeEncodeError as error:
        before = len(line[: error.start].encode())
        byte = ord(line[error.start]) - 0xDC00
        raise DataError(not_utf8(path, f"in line {number}, at its byte {before + 1}", byte)) from error


def refuse_utf16(path: Path, start: bytes) -> None:
    """Raise DataError if the first bytes of a file are a byte order mark of UTF-16 or UTF-32."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{path}: UTF-32 text, expected UTF-8 (convert it: iconv -f UTF-32 -t UTF-8)")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: UTF-16 text, expected UTF-8 (convert it: iconv -f UTF-16 -t UTF-8)")


def not_utf8(path: Path, where: str, byte: int) -> str:
    """Return the error message for an invalid byte in a file, ``where`` naming its position."""
    return f"{path}: not UTF-8 text: invalid byte 0x{byte:02x} {where} (convert the file to UTF-8: iconv -t UTF-8)"
