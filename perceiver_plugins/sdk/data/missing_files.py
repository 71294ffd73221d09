"""Messages about files that do not exist."""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

from perceiver_registry.errors import shorten

MAX_SIBLINGS = 1000
"""Largest number of files that a misspelt name is compared with. Arbitrary: this takes a few milliseconds."""


MAX_PATH = 255
"""Characters of a path in messages: the longest file name of most file systems."""


def missing(path: Path, noun: str = "file") -> str:
    """Return the message for a missing file, with similar names in its folder.

    Args:
        path: the path.
        noun: kind of file: "file or folder".
    """
    message = f"{noun} {shorten_path(path)} not found"
    if not os.path.isdir(path.parent):
        return message
    siblings = [file.name for file in islice(path.parent.iterdir(), MAX_SIBLINGS)]
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    return f"{message} (did you mean {' or '.join(repr(shorten(name)) for name in near)}?)" if near else message


def shorten_path(path: Path | str) -> str:
    """Shorten a path or pattern for a message."""
    return shorten(str(path), MAX_PATH)
