"""Data errors, and one-line messages of other libraries' errors."""

from __future__ import annotations

from typing import Any

from perceiver_registry.errors import UserError


class DataError(UserError):
    """Invalid data.

    Args:
        message: one line: ``<file or flag>: <what is wrong> (<what to do>)``.
    """

    def __init__(self, message: str) -> None:
        if message.startswith(f"Caught {type(self).__name__} in DataLoader worker"):
            # torch raises errors of worker processes again, with the worker's traceback as message. Its last line is
            # "module.DataError: message".
            message = message.rstrip().rpartition("\n")[2].partition(": ")[2]
        super().__init__(message)


def list_first(value: Any, count: int = 3) -> str:
    """Format a value for a message; of a list, the first items and the length: "a, b, c, ... 5 in all"."""
    items = [*value] if isinstance(value, list | tuple) else [value]
    return ", ".join(map(str, items[:count])) + (f", ... {len(items)} in all" if len(items) > count else "")


def one_line(error: BaseException, limit: int = 160) -> str:
    """Return the first line of an error's message, shortened to ``limit`` characters."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".:") if lines else ""
    if len(text) > limit:
        text = f"{text[: limit - 3].rstrip()}..."
    return text or type(error).__name__
