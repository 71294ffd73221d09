"""Opening the user's files: formats by name, decompression, and checked UTF-8 lines."""

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

import pyarrow as pa

from perceiver_plugins.sdk.errors import DataError

TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
FORMATS = (".txt", *TABLES)
COMPRESSIONS = (".gz", ".xz", ".bz2", ".zst")


def file_format(path: Path) -> tuple[str, str]:
    """(format, compression) by the file's name: (".jsonl", ".gz"). Any other ending counts as text."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    return (suffixes[-1] if suffixes and suffixes[-1] in FORMATS else ".txt"), compression


def is_table(path: Path) -> bool:
    """Whether the file's name says a format that has rows and columns."""
    return file_format(path)[0] in TABLES


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
def readable(path: Path) -> Iterator[None]:
    """Name the file in errors of the operating system and of decompression."""
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed data is damaged or ends too early ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def decoded_lines(path: Path) -> Iterator[str]:
    r"""The lines of a UTF-8 file, line ends included, which may be \n, \r\n, \r or a mixture.

    Raises:
        DataError: If the file is not UTF-8, or holds a zero byte; the message names the line.
    """
    with open_binary(path) as file:
        refuse_utf16(path, file.read(4))
    with open_binary(path) as file:
        # newline="" splits lines at all three ends and leaves them as they are, as the csv module needs it. Bytes that
        # are not UTF-8 become lone surrogates, which are found in their line.
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
        raise DataError(not_utf8(path, f"at line {number}, byte {before + 1} of it", byte)) from error


def refuse_utf16(path: Path, start: bytes) -> None:
    """Raise DataError if a file that starts with these bytes is UTF-16, or UTF-32 where they are at least four."""
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{path}: UTF-32 text, not UTF-8; convert it (iconv -f UTF-32 -t UTF-8)")
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path}: UTF-16 text, not UTF-8; convert it (iconv -f UTF-16 -t UTF-8)")


def not_utf8(path: Path, where: str, byte: int) -> str:
    """The message for a byte that is not UTF-8."""
    return f"{path}: not UTF-8 text: bad byte 0x{byte:02x} {where}; convert the file to UTF-8 (iconv -t UTF-8)"
