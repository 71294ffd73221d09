"""Errors that are the data's, and how an error of another library is told."""

from __future__ import annotations

from typing import Any

from perceiver_registry.errors import UserError


class DataError(UserError):
    """Data that cannot be used as it is.

    Args:
        message: one line that says what is wrong, and where.
    """

    def __init__(self, message: str) -> None:
        if message.startswith(f"Caught {type(self).__name__} in DataLoader worker"):
            # torch raises an error of a worker process anew, with the worker's traceback as its message. The last line
            # of that is "module.DataError: message".
            message = message.rstrip().rpartition("\n")[2].partition(": ")[2]
        super().__init__(message)


def list_first(value: Any, count: int = 3) -> str:
    """Format a value for a message; of a list, the first items and the length: "a, b, c, ... 5 in all"."""
    items = [*value] if isinstance(value, list | tuple) else [value]
    return ", ".join(map(str, items[:count])) + (f", ... {len(items)} in all" if len(items) > count else "")


def one_line(error: BaseException, limit: int = 160) -> str:
    """The first line of an error's message, for use within a message of ours; "..." says that it was longer."""
    lines = str(error).strip().splitlines()
    text = lines[0].strip().rstrip(".:") if lines else ""
    if len(text) > limit:
        text = f"{text[: limit - 3].rstrip()}..."
    return text or type(error).__name__
