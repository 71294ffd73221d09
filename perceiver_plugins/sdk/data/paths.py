"""Paths as people write them: files, folders and patterns, whatever characters they have."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from pathlib import Path

from perceiver_plugins.sdk.data.file_trees import FolderTree, report_links
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.errors import DataError


def as_path(name: str) -> Path:
    """Return the path that a name denotes, with ``~`` expanded where there is such a user."""
    return Path(os.path.expanduser(name))


def is_folder(name: str) -> bool:
    """Whether a name is that of a folder. The empty name is not: Python takes it for the current folder."""
    return bool(name) and os.path.isdir(os.path.expanduser(name))


def is_file(name: str) -> bool:
    """Whether a name is that of a file, or of anything else that is there and not a folder, such as a pipe."""
    path = os.path.expanduser(name)
    return os.path.exists(path) and not os.path.isdir(path)


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern such as ``*.jpg``, and not that of something with these characters in its name."""
    return glob.has_magic(name) and "\0" not in name and not os.path.lexists(os.path.expanduser(name))


def matching_files(pattern: str) -> list[Path]:
    """Return the files that match a pattern, sorted. ``**`` follows no links to folders, as those may lead back.

    Raises:
        DataError: if it is not a valid pattern.
    """
    path = as_path(pattern)
    anchor = Path(path.anchor)
    parts = path.relative_to(anchor)
    try:
        matches = [file for file in anchor.glob(str(parts)) if file.is_file()]
    except ValueError as error:
        raise DataError(f"{shorten_path(pattern)!r} is no pattern (** must be a whole part of the path)") from error
    written = set(parts.parts)  # hidden names count where the pattern has them
    return sorted(
        file for file in matches if not any(part.startswith(".") and part not in written for part in file.parts)
    )


def files_below(folder: Path, is_meant: Callable[[Path], bool]) -> tuple[list[Path], list[Path]]:
    """Find files in a folder and below, each folder once whatever links lead to it. Reports links that are left out.

    Args:
        folder: the folder.
        is_meant: tells by a file's path whether it is of the kind that is looked for.

    Returns:
        The files that are, and those that are not, sorted. Files that are hidden or the system's are in neither.

    Raises:
        DataError: if a folder cannot be read.
    """
    tree = FolderTree(folder)
    report_links(tree)
    files = [folder / name for name in tree.names]
    return [file for file in files if is_meant(file)], [file for file in files if not is_meant(file)]
