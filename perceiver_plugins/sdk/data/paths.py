"""Paths from command lines: files, folders and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from perceiver_plugins.sdk.data.file_trees import FolderTree, report_unread_entries
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.errors import DataError


def as_path(name: str) -> Path:
    """Convert a name to a path, with ``~`` expanded if the user exists."""
    return Path(os.path.expanduser(name))


def is_folder(name: str) -> bool:
    """Check whether a name is a folder. An empty name is not, although Python reads it as the current folder."""
    return bool(name) and os.path.isdir(os.path.expanduser(name))


def is_file(name: str) -> bool:
    """Check whether a name is a file or anything else that is not a folder, such as a pipe."""
    path = os.path.expanduser(name)
    return os.path.exists(path) and not os.path.isdir(path)


def is_pattern(name: str) -> bool:
    """Check whether a name is a pattern such as ``*.jpg``, and not an existing path with these characters."""
    return glob.has_magic(name) and "\0" not in name and not os.path.lexists(os.path.expanduser(name))


def matching_files(pattern: str) -> list[Path]:
    """Return the files that match a pattern, sorted. ``**`` does not follow links to folders, which may be circular.

    Raises:
        DataError: if it is not a valid pattern.
    """
    path = as_path(pattern)
    anchor = Path(path.anchor)
    parts = path.relative_to(anchor)
    try:
        matches = [file for file in anchor.glob(str(parts)) if file.is_file()]
    except ValueError as error:
        raise DataError(
            f"{shorten_path(pattern)!r}: not a valid pattern (** must be a whole part of the path)"
        ) from error
    written = set(parts.parts)  # hidden files match if the pattern names them
    return sorted(
        file for file in matches if not any(part.startswith(".") and part not in written for part in file.parts)
    )


def files_below(folder: Path, is_selected: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """Find the files in a folder recursively, each real folder once. Links that are left out are reported.

    Args:
        folder: the folder.
        is_selected: returns whether a file is selected, by its path.

    Returns:
        The selected files and the others, sorted, without hidden and system files.

    Raises:
        DataError: if a folder cannot be read.
    """
    tree = FolderTree(folder)
    report_unread_entries(tree)
    files = [folder / name for name in tree.names]
    return [file for file in files if is_selected(file)], [file for file in files if not is_selected(file)]
