"""Output of the command: standard output and error with escaped control characters, and checks of output files."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from perceiver_registry import UserError
from perceiver_registry.escaping import ENCODING_ERRORS, escape_controls

CARRIAGE_RETURN = re.compile(r"\r+")
"""Start of a redrawn progress bar on any stream."""

CURSOR = re.compile(r"\r+|\n*(\x1b\[A)+")
"""Cursor movements of tqdm on a terminal, alone or before a bar."""


class EscapingStream:
    """Text stream that escapes control characters.

    Progress bars keep working: a write may begin with a carriage return or, on a terminal, a cursor movement. rich
    escapes its input itself and writes to the underlying stream.

    Args:
        stream: the underlying stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # attribute that rich's consoles write to
        self._cursor = CURSOR if stream.isatty() else CARRIAGE_RETURN

    def write(self, text: str) -> int:
        start = self._cursor.match(text)
        kept = start[0] if start else ""
        self.rich_proxied_file.write(kept + escape_controls(text[len(kept) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)


def is_merged() -> bool:
    """Return whether standard output and error are the same file or pipe, so that notes would mix with data."""
    try:
        output, error = os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # a stream without a file
        return False
    return os.path.samestat(output, error) and not sys.stderr.isatty()


@contextlib.contextmanager
def escaped_output() -> Iterator[None]:
    """Escape control characters, and characters outside the encoding, on standard output and error."""
    with contextlib.ExitStack() as stack:
        for name, redirect in (("stdout", contextlib.redirect_stdout), ("stderr", contextlib.redirect_stderr)):
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=ENCODING_ERRORS)
            if stream is not None:  # None in a process without a console
                stack.enter_context(redirect(EscapingStream(stream)))
        yield


def check_writable(flag: str, file: Path, overwrite: bool) -> None:
    """Check that the file of a flag can be written, before its content is computed.

    Args:
        flag: the flag with its value, for messages.
        file: the file.
        overwrite: replace an existing file.

    Raises:
        UserError: if it is a folder, a device or a pipe, exists and must not be replaced, or cannot be created.
    """
    if os.path.isdir(file):
        raise UserError(f"{flag}: is a folder (give a file name)")
    if not os.path.isdir(file.parent):
        raise UserError(f"{flag}: its folder does not exist (create it first)")
    mode = _mode(flag, file)
    if mode is not None and not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UserError(f"{flag}: is a device or a pipe (give the name of a file)")
    if mode is not None and not overwrite:
        raise UserError(f"{flag}: already exists (--overwrite replaces it)")
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise UserError(f"{flag}: its folder cannot be written ({error.strerror})") from error


def _mode(flag: str, file: Path) -> int | None:
    """Return the mode of a file without following a link; None if the file does not exist.

    Raises:
        UserError: if the file system refuses the name.
    """
    try:
        return file.lstat().st_mode
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{flag}: cannot be created ({getattr(error, 'strerror', None) or error})") from error


def refuse_inputs(flag: str, file: Path, inputs: Iterable[str | None]) -> None:
    """Check that a file to write is not an input.

    Args:
        flag: the flag with its value, for messages.
        file: the file to write.
        inputs: inputs: paths and other texts.

    Raises:
        UserError: if an input is the file, under the same or another path.
    """
    if not file.is_file():
        return
    for given in inputs:
        with contextlib.suppress(OSError, ValueError):  # a text, or a missing file
            if given and os.path.samefile(os.path.expanduser(given), file):
                raise UserError(f"{flag}: is also an input (give another file)")
