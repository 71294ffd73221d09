"""Messages about files that do not exist."""

from __future__ import annotations

import difflib
import os
from itertools import islice
from pathlib import Path

from perceiver_registry.errors import shorten

MAX_SIBLINGS = 1000
"""Files of a folder that a misspelt name is compared with. Arbitrary: comparing takes a few milliseconds."""


MAX_PATH = 255
"""Characters of a path that a message shows. Arbitrary: longer names are no file's on most systems."""


def missing(path: Path, noun: str = "file") -> str:
    """Say that there is no such file, and which names in its folder are near.

    Args:
        path: the path.
        noun: what is missing.
    """
    message = f"there is no {noun} {shorten_path(path)}"
    if not os.path.isdir(path.parent):
        return message
    siblings = [file.name for file in islice(path.parent.iterdir(), MAX_SIBLINGS)]
    near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
    return f"{message} (did you mean {' or '.join(repr(shorten(name)) for name in near)}?)" if near else message


def shorten_path(path: Path | str) -> str:
    """Cut a path or pattern that is too long for most file systems to what a message shows of it."""
    return shorten(str(path), MAX_PATH)
