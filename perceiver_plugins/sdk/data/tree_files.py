"""Files of one kind in a folder or zip archive, for data modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from perceiver_plugins.sdk.data.file_trees import FileTree, open_tree, select_files
from perceiver_plugins.sdk.errors import DataError


def require_files(tree: FileTree, suffixes: Sequence[str], noun: str) -> list[str]:
    """Select files by their suffixes, and report the others.

    Args:
        tree: the folder or archive.
        suffixes: suffixes in lower case.
        noun: plural noun for the files in messages, such as "images".

    Raises:
        DataError: if there is no such file.
    """
    names = select_files(tree, suffixes, noun)
    if not names:
        raise DataError(f"{tree.path}: no {noun} ({', '.join(suffixes)})")
    return names


def read_files(path: str | Path, suffixes: Sequence[str], noun: str, flag: str = "path") -> Iterator[tuple[str, bytes]]:
    """Read the files with given suffixes in a folder or zip archive, recursively.

    Args:
        path: the folder or archive.
        suffixes: suffixes in lower case.
        noun: plural noun for the files in messages, such as "images".
        flag: name of the path's flag, for messages.

    Yields:
        Path of each file, for messages, and its content; sorted by path.

    Raises:
        DataError: if the folder or archive does not exist or has no such file, or if a file cannot be read.
    """
    tree = open_tree(path, flag)
    for name in require_files(tree, suffixes, noun):
        yield tree.shown(name), tree.read(name)
