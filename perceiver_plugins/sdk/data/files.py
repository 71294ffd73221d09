"""Search for the user's files, and documents of text in them, compressed or not.

Errors are one line with the file and the location in it.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.sdk.data.cells import text_of
from perceiver_plugins.sdk.data.left_out import LeftOut
from perceiver_plugins.sdk.data.missing_files import missing, shorten_path
from perceiver_plugins.sdk.data.opening import (
    COMPRESSIONS,
    FORMATS,
    TABLES,
    file_format,
    is_table,
    not_utf8,
    open_binary,
    readable,
    refuse_utf16,
)
from perceiver_plugins.sdk.data.paths import as_path, files_below, is_file, is_folder, is_pattern, matching_files
from perceiver_plugins.sdk.data.table_rows import Row, read_rows, require_columns
from perceiver_plugins.sdk.errors import DataError

__all__ = [
    "BLOCK",
    "COMPRESSIONS",
    "FORMATS",
    "TABLES",
    "Piece",
    "Row",
    "file_format",
    "find_files",
    "find_split_files",
    "is_table",
    "known_format",
    "open_binary",
    "read_documents",
    "read_rows",
    "require_columns",
    "text_of",
]

FLAGS = {"train": "train_files", "validation": "val_files", "test": "test_files"}
"""Flags of the files of each split."""

BLOCK = 2**14
"""Bytes per read of a text file. A piece of a document has one or two of these."""


class Piece(NamedTuple):
    """Document or piece of a document."""

    text: str
    first: bool = True
    last: bool = True


def find_files(paths: str | Sequence[str], flag: str) -> list[Path]:
    """Find the files that the value of a flag names.

    Args:
        paths: A file, a folder (all files of a known format, recursively), a pattern, or a list of these.
        flag: Name of the flag, for messages.

    Returns:
        The files in the order of ``paths``, those of a folder or pattern sorted by name.

    Raises:
        DataError: If one of ``paths`` names no file.
    """
    found: dict[Path, Path] = {}  # by real path: links give a file several names
    for name in [paths] if isinstance(paths, str) else paths:
        path = as_path(name)
        if not name:
            raise DataError(f"{flag}: an empty name (give a file, a folder or a pattern)")
        if is_folder(name):
            files = _files_of_folder(path, flag)
        elif is_file(name):
            files = [path]
        elif is_pattern(name):
            files = _files_of_pattern(name, flag)
            if not files:
                raise DataError(f"{flag}: no file matches {shorten_path(name)!r}")
        else:
            raise DataError(f"{flag}: {missing(path)}")
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise DataError(f"{flag}: no file given")
    return list(found.values())


def find_split_files(
    train_files: str | Sequence[str] | None,
    val_files: str | Sequence[str] | None,
    test_files: str | Sequence[str] | None,
) -> dict[str, list[Path]]:
    """Find the files of each split.

    Args:
        train_files: Files to train on, as for :func:`find_files`. None: the split is absent.
        val_files: Files to validate on.
        test_files: Files to test on.

    Returns:
        The files by split: "train", "validation" and "test".

    Raises:
        DataError: If no flag is given, if a flag names no file, or if a file of another flag is among those of the
            first.
    """
    given = {"train": train_files, "validation": val_files, "test": test_files}
    files = {split: find_files(names, FLAGS[split]) for split, names in given.items() if names is not None}
    if not files:
        raise DataError("train_files: missing (name files to train on)")
    _refuse_shared_files({FLAGS[split]: found for split, found in files.items()})
    return files


def _files_of_folder(folder: Path, flag: str) -> list[Path]:
    """Return the files of a known format in a folder, recursively and sorted, and report others."""
    files, others = files_below(folder, known_format)
    if not files:
        raise DataError(f"{flag}: no {', '.join(FORMATS)} file (compressed or not) in the folder {folder}")
    if others:
        rank_zero_warn(
            f"{flag}: {folder}: {len(others)} file(s) of other formats left out, such as {others[0].name!r} "
            f"(formats by name: {', '.join(FORMATS)})"
        )
    return files


def _files_of_pattern(pattern: str, flag: str) -> list[Path]:
    try:
        return matching_files(pattern)
    except DataError as error:
        raise DataError(f"{flag}: {error}") from error


def _refuse_shared_files(files: Mapping[str, Sequence[Path]]) -> None:
    """Raise DataError if a file of another flag is among the files of the first flag.

    Args:
        files: Files by flag, with the training data first.
    """
    (first, train), *others = files.items()
    known = {file.resolve() for file in train}
    for flag, given in others:
        if both := [file for file in given if file.resolve() in known]:
            raise DataError(f"{flag}: {min(both)} is in {first} as well (remove it from one of them)")


def known_format(path: Path) -> bool:
    """Check whether the suffix of a file is a known format, and the file is not hidden."""
    stem = path.name.lower()
    for compression in COMPRESSIONS:
        stem = stem.removesuffix(compression)
    return stem.endswith(FORMATS) and not stem.startswith(".")


def read_documents(
    path: Path, text_column: str = "text", delimiter: str | None = None, left_out: LeftOut | None = None
) -> Iterator[Piece]:
    """Read the documents of a file: each row of a table, or a whole text file in pieces.

    Rows with an empty or missing text are left out.

    Args:
        path: The file.
        text_column: Name of the column with the text, for tables.
        delimiter: Delimiter of .csv and .tsv files. None: a comma, or a tab in .tsv files.
        left_out: Counter of the rows that are left out.

    Raises:
        DataError: If the file is missing, empty, damaged, binary or not UTF-8, or has no such column.
    """
    counted = left_out or LeftOut()
    pieces = _texts_of_rows(path, text_column, delimiter, counted) if is_table(path) else _read_text(path)
    empty = True
    with readable(path):
        for piece in pieces:
            empty = False
            yield piece
    if empty:
        raise DataError(f"{path}: no text (the file, or each of its texts, is empty)")


def _texts_of_rows(path: Path, text_column: str, delimiter: str | None, left_out: LeftOut) -> Iterator[Piece]:
    for location, row in read_rows(path, {text_column: "text_column"}, delimiter):
        text = text_of(row, text_column, location)
        left_out.count("no text", location, is_left_out=not text)
        if text:
            yield Piece(text)


def _start_of_text(path: Path, block: bytes) -> int:
    """Return the length of a UTF-8 byte order mark at the beginning of a file.

    Raises:
        DataError: if the file has a byte order mark of UTF-16 or UTF-32.
    """
    refuse_utf16(path, block)
    return len(codecs.BOM_UTF8) if block.startswith(codecs.BOM_UTF8) else 0


def _piece_end(text: str) -> int:
    """Return the end of a piece of a long text: after the last line or, without line ends, after the last word.

    The last character is always left for the next piece, which may be marked as the last one.
    """
    end = len(text) - 1
    return text.rfind("\n", 0, end) + 1 or text.rfind(" ", 0, end) + 1 or end


def _read_text(path: Path) -> Iterator[Piece]:
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(), translate=True)
    with open_binary(path) as file:
        position, rest, first = 0, "", True
        while block := file.read(BLOCK):
            start = _start_of_text(path, block) if position == 0 else 0
            if (zero := block.find(b"\0")) >= 0:
                raise DataError(f"{path}: a binary file (zero byte at byte {position + zero}), expected UTF-8 text")
            try:
                text = rest + decoder.decode(block[start:])
            except UnicodeDecodeError as error:
                # The decoder buffers the beginning of a character at the end of the previous block.
                offset = position + start + error.start - (len(error.object) - len(block[start:]))
                raise DataError(not_utf8(path, f"at byte {offset}", error.object[error.start])) from error
            position += len(block)
            cut = _piece_end(text) if len(text) > BLOCK else 0
            if cut:
                yield Piece(text[:cut], first, False)
                first = False
            rest = text[cut:]
        try:
            rest += decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DataError(
                not_utf8(path, f"at byte {position - len(error.object)} (the end)", error.object[0])
            ) from error
        if rest and not (first and not rest.strip()):
            yield Piece(rest, first, True)
