"""Files of one kind in a folder or zip archive, for data modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from perceiver_plugins.sdk.data.file_trees import FileTree, open_tree, select_files
from perceiver_plugins.sdk.errors import DataError


def require_files(tree: FileTree, suffixes: Sequence[str], noun: str) -> list[str]:
    """Select the files of a kind in a tree, and report what else is there.

    Args:
        tree: the files.
        suffixes: endings of their names, in lower case.
        noun: what such files are called: "images".

    Raises:
        DataError: if there is none.
    """
    names = select_files(tree, suffixes, noun)
    if not names:
        raise DataError(f"{tree.path}: there are no {noun} ({', '.join(suffixes)})")
    return names


def read_files(path: str | Path, suffixes: Sequence[str], noun: str, flag: str = "path") -> Iterator[tuple[str, bytes]]:
    """Read the files of a kind in a folder, or in a zip archive, and below.

    Args:
        path: the folder or archive.
        suffixes: endings of their names, in lower case.
        noun: what such files are called: "images".
        flag: the flag that names the path, for messages.

    Yields:
        The path of each file as messages show it, and its content; sorted by path.

    Raises:
        DataError: if there is no such folder or archive, or no such file in it, or if one cannot be read.
    """
    tree = open_tree(path, flag)
    for name in require_files(tree, suffixes, noun):
        yield tree.shown(name), tree.read(name)
