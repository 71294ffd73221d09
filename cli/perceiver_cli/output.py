"""The only way from the command to a terminal, pipe or log: standard output and error without control characters."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from perceiver_registry.escaping import ENCODING_ERRORS, escape_controls

CARRIAGE_RETURN = re.compile(r"\r+")
"""A progress bar that is drawn anew begins with it, wherever it is drawn."""

CURSOR = re.compile(r"\r+|\n*(\x1b\[A)+")
"""Characters with which tqdm moves the cursor, before a bar or by themselves."""


class EscapingStream:
    """A text stream that escapes control characters in what is written to it.

    Progress bars keep working: a write may begin with what moves the cursor to the start of the line or, on a terminal,
    up. rich escapes the text that it is given itself and draws on the stream below.

    Args:
        stream: the stream below.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # where rich's consoles write to
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
    """Whether standard output and error go to one file or pipe, where a note would be read as part of the output."""
    try:
        output, error = os.fstat(sys.stdout.fileno()), os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # a stream without a file
        return False
    return os.path.samestat(output, error) and not sys.stderr.isatty()


@contextlib.contextmanager
def escaped_output() -> Iterator[None]:
    """Escape within this context what is written to standard output and error, and what their encoding lacks."""
    with contextlib.ExitStack() as stack:
        for name, redirect in (("stdout", contextlib.redirect_stdout), ("stderr", contextlib.redirect_stderr)):
            stream = getattr(sys, name)
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=ENCODING_ERRORS)
            if stream is not None:  # a process without a console has none
                stack.enter_context(redirect(EscapingStream(stream)))
        yield
