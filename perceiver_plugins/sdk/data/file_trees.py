"""Files in a folder or zip archive, and one policy for those that are not read.

Hidden files and those that systems add (:data:`SYSTEM_NAMES`) are ignored. Whatever else is left out is counted and
reported (:func:`report_left_out`). Each real folder is read once: a link to a folder that is read anyway, or to one
that holds the whole tree, is left out. What cannot be read is an error.
"""

from __future__ import annotations

import lzma
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pytorch_lightning.utilities import rank_zero_info

from perceiver_plugins.sdk.data.missing_files import missing
from perceiver_plugins.sdk.errors import DataError, one_line

SYSTEM_NAMES = frozenset(
    (
        *("__macosx", "icon\r"),
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        *("@eadir", "@recycle", "#recycle", "@recently-snapshot", "lost+found"),
    )
)
"""Names, in lower case, of what macOS, Windows, network storage and ext4 add to folders."""

LARGEST_FILE = 2**30
"""Bytes that a file in an archive may have. A few kilobytes of an archive can claim to be any number of gigabytes."""

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError, ValueError)
"""Errors of damaged, encrypted (RuntimeError) and unsupported (NotImplementedError) archives."""


class FileTree(ABC):
    """The files in a folder or archive, by their paths in it, which have "/" between their parts.

    Attributes:
        path: the folder or archive.
        names: paths of all files except hidden ones and those of the system, sorted.
        folders: paths of the folders; those that hold files need not be among them.
        left_out: one line for each link or special file that is not followed.
    """

    path: Path
    names: list[str]
    folders: list[str]
    left_out: list[str]

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: if it cannot be read.
        """

    def shown(self, name: str) -> str:
        """A path as messages show it."""
        return printable(f"{self.path}/{name}".rstrip("/"))


class FolderTree(FileTree):
    """The files in a folder.

    Raises:
        DataError: if the folder, or one below it, cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names, self.folders, self.left_out = [], [], []
        real = path.resolve()
        above = {_identity(folder) for folder in real.parents}
        read: set[tuple[int, int]] = set()
        links: deque[str] = deque()
        self._add("", read, links)
        while links:  # after all real folders, so that what a folder holds has its own path rather than a link's
            name = links.popleft()
            identity = _identity(path / name)
            if identity in above:
                self.left_out.append(f"{self.shown(name)} (a link to a folder above)")
            elif identity in read:
                self.left_out.append(f"{self.shown(name)} (a link to a folder that is read already)")
            else:
                self.folders.append(name)
                self._add(name, read, links)
        self.names.sort()
        self.folders.sort()

    def _add(self, start: str, read: set[tuple[int, int]], links: deque[str]) -> None:
        """Add the files of a folder and of the real folders below; links to folders are put into ``links``."""
        waiting = deque([start])
        while waiting:
            folder = waiting.popleft()
            identity = _identity(self.path / folder)
            if identity in read:
                continue
            read.add(identity)
            for entry in self._entries(folder):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    self.folders.append(name)
                    waiting.append(name)
                elif _is_link_to_folder(entry):
                    links.append(name)
                elif not os.path.exists(entry.path) or entry.is_file():  # reading a broken link is an error
                    self.names.append(name)
                else:
                    self.left_out.append(f"{self.shown(name)} (not a regular file)")

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self.path / folder) as entries:
                return sorted((entry for entry in entries if not is_ignored(entry.name)), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{self.shown(folder)}: cannot be read ({error.strerror or error})") from error

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DataError(f"{self.shown(name)}: cannot be read ({error.strerror or error})") from error


class ZipTree(FileTree):
    """The files in a zip archive, which is read as it is, by several processes if need be.

    Raises:
        DataError: if it is not a zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out = []
        self._archives: dict[int, zipfile.ZipFile] = {}
        try:
            entries = self._archive().infolist()
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: neither a folder nor a zip archive, or a damaged one") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        # Some programs on Windows write its own separator.
        self._entries = {entry.filename.replace("\\", "/"): entry for entry in entries}
        kept = [name for name in self._entries if not any(map(is_ignored, name.split("/")))]
        self.names = sorted(name for name in kept if not name.endswith("/"))
        self.folders = sorted(name.rstrip("/") for name in kept if name.endswith("/"))

    def read(self, name: str) -> bytes:
        entry = self._entries[name]
        if entry.file_size > LARGEST_FILE:  # as the archive says itself; it is not read any further
            raise DataError(f"{self.shown(name)}: it says that it has {entry.file_size:,} bytes, too many to be read")
        try:
            return self._archive().read(entry.filename)
        except ZIP_ERRORS as error:
            raise DataError(f"{self.shown(name)}: cannot be read from the archive ({one_line(error)})") from error

    def _archive(self) -> zipfile.ZipFile:
        # An open file has one position, which processes that were forked would share.
        process = os.getpid()
        if process not in self._archives:
            self._archives[process] = zipfile.ZipFile(self.path)
        return self._archives[process]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


def open_tree(name: str | Path, flag: str = "path") -> FileTree:
    """The files that the value of a flag names.

    Raises:
        DataError: if there is no such folder or archive.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return FolderTree(path)
    if path.exists():
        return ZipTree(path)
    raise DataError(f"{flag}: {missing(path, 'folder or archive')}")


def select_files(tree: FileTree, suffixes: Sequence[str], noun: str) -> list[str]:
    """The files of a kind, by their suffixes. Reports what else there is.

    Args:
        tree: the files.
        suffixes: endings of their names, in lower case.
        noun: what such files are called: "images".
    """
    endings = tuple(suffixes)
    chosen = [name for name in tree.names if name.lower().endswith(endings)]
    others = [name for name in tree.names if not name.lower().endswith(endings)]
    if chosen:
        report_left_out(
            str(tree.path), len(others), "files", _endings(others) + f"; {noun} end in {', '.join(suffixes)}"
        )
    report_links(tree)
    return chosen


def report_links(tree: FileTree) -> None:
    """Report the links and special files that a tree leaves out."""
    report_left_out(str(tree.path), len(tree.left_out), "links or special files", _first(tree.left_out))


def report_unused(tree: FileTree, names: Iterable[str], used: Collection[str], noun: str) -> None:
    """Report files of a kind that are in no example.

    Args:
        tree: the files.
        names: all of the kind.
        used: those that are in an example.
        noun: what to call them: "images outside the folders of classes".
    """
    unused = [name for name in names if name not in used]
    report_left_out(str(tree.path), len(unused), noun, _first(list(map(tree.shown, unused))))


def report_left_out(source: str, number: int, noun: str, detail: str) -> None:
    """Say that something is left out, if anything is.

    Args:
        source: the folder or archive.
        number: how much.
        noun: of what: "files".
        detail: which, or why.
    """
    if number:
        rank_zero_info(printable(f"{source}: {number} {noun} left out: {detail}"))


def printable(name: str) -> str:
    """A path in which bytes that are not UTF-8 are written as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _endings(names: Iterable[str]) -> str:
    """How many files there are of each ending, the most frequent first."""
    counts = Counter(PurePosixPath(name).suffix.lower() or "without ending" for name in names).most_common()
    more = f", and {len(counts) - 5} other endings" if len(counts) > 5 else ""
    return ", ".join(f"{number} {ending}" for ending, number in counts[:5]) + more


def _first(lines: Sequence[str]) -> str:
    return f"{lines[0]}{', ...' if len(lines) > 1 else ''}" if lines else ""


def _is_link_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # links in a circle
        return False


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden or the system's."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode, which are the same whatever links lead to a folder."""
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{printable(str(folder))}: cannot be read ({error.strerror or error})") from error
    return status.st_dev, status.st_ino
