"""Inputs of ``predict``: arguments, and lines of a file and of standard input, streamed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from perceiver_registry import UserError
from perceiver_registry.escaping import escape_line

MAX_LINE = 2**20
"""Characters kept of the start and of the end of a line. Arbitrary: more than any model reads."""

Lines = Callable[[bool], Iterator[str]]
"""Iterator over the lines of all streams. Argument: accept lines of which only start and end are kept."""

STANDARD_INPUT = "standard input"

TABLE = re.compile(r"\.(csv|tsv|jsonl?|parquet)(\.(gz|xz|bz2|zst))?$", re.IGNORECASE)
"""Suffix of a table, whose raw rows are not inputs."""


def open_inputs(arguments: Sequence[str], file: str | None) -> tuple[list[str], Lines | None]:
    """Return the inputs among the arguments, and the lines of file and standard input; None without those.

    Args:
        arguments: inputs; "-", or no arguments at all, selects standard input.
        file: file with one input per line.

    Raises:
        UserError: if no input is given, or if the file cannot be opened or is a table.
    """
    given = [text for text in arguments if text != "-"]
    streams: list[tuple[str, TextIO]] = []
    if file:
        streams.append((f"--input={file}", _open_file(file)))
    if "-" in arguments or not (given or file):
        if sys.stdin is None or sys.stdin.isatty():
            raise UserError("no inputs (give inputs, --input=FILE or standard input)")
        streams.append((STANDARD_INPUT, sys.stdin))
    if not streams:
        return given, None
    return given, lambda long_lines: _lines_of_all(streams, long_lines, bool(given))


def _open_file(file: str) -> TextIO:
    if TABLE.search(file):
        raise UserError(f"--input={file}: a table, not a file with one input per line (give a table as an argument)")
    try:
        return open(os.path.expanduser(file), encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"--input={file}: {getattr(error, 'strerror', None) or error}") from error


def _lines_of_all(streams: Sequence[tuple[str, TextIO]], long_lines: bool, others: bool) -> Iterator[str]:
    """Yield the lines of streams without empty ones.

    Args:
        streams: names and streams.
        long_lines: accept lines of which the middle is dropped.
        others: other inputs are given, so that standard input may be empty.
    """
    for name, stream in streams:
        is_empty = True
        for line in _lines(name, stream, long_lines):
            is_empty = False
            yield line
        if name == STANDARD_INPUT:
            if is_empty and not others and len(streams) == 1:
                raise UserError("standard input: empty (give inputs or --input=FILE)")
            continue
        stream.close()
        if is_empty:
            raise UserError(f"{name}: the file is empty")


def _lines(name: str, stream: TextIO, long_lines: bool) -> Iterator[str]:
    number = 0
    try:
        while line := stream.readline(MAX_LINE):
            number += 1
            line = line.removeprefix("\ufeff") if number == 1 else line
            if not line.endswith("\n"):
                rest, is_complete = _end_of_line(stream)
                if not (is_complete or long_lines):
                    raise UserError(f"{name}, line {number}: longer than {MAX_LINE} characters")
                line += rest
            if line.strip():
                yield line.removesuffix("\n")
    except UnicodeDecodeError as error:
        where = f"byte {error.start}" if number == 0 else f"after line {number}"
        raise UserError(f"{name}: not UTF-8 text ({where})") from error
    except OSError as error:
        raise UserError(f"{name}: {escape_line(error.strerror or str(error))}") from error


def _end_of_line(stream: TextIO) -> tuple[str, bool]:
    """Read the rest of a line; return its end, and whether nothing of the rest was dropped."""
    end, is_complete = "", True
    while not end.endswith("\n") and (more := stream.readline(MAX_LINE)):
        is_complete = is_complete and len(end) + len(more) <= MAX_LINE
        end = (end + more)[-MAX_LINE:]
    return end, is_complete
