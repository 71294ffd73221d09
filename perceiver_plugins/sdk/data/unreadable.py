"""Search for files that cannot be read, before training."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from perceiver_plugins.sdk.errors import DataError

File = TypeVar("File")


def find_problems(read: Callable[[File], Any], files: Sequence[File]) -> list[str]:
    """Read each file in several threads.

    Args:
        read: reads a file, and raises DataError if it cannot.
        files: the files.

    Returns:
        The problem of each file; an empty string for readable files.
    """

    def find_problem(file: File) -> str:
        try:
            read(file)
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        return list(threads.map(find_problem, files))
