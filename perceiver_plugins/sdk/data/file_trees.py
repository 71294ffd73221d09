"""Files in a folder or zip archive, with the same rules for files that are left out.

Hidden and system files (:data:`SYSTEM_NAMES`) are ignored. Other files that are not read are counted and reported
(:func:`report_left_out`). Each real folder is read once: links to folders in the tree or to parents of it are left out.
Unreadable files are errors.
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
"""Names, in lower case, of files and folders that macOS, Windows, network storage and ext4 create."""

MAX_FILE_SIZE = 2**30
"""Largest uncompressed size of a file in an archive in bytes. Arbitrary; a limit against zip bombs."""

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError, ValueError)
"""Errors of damaged, encrypted (RuntimeError) and unsupported (NotImplementedError) archives."""


class FileTree(ABC):
    """Base class of folders and archives. Paths in them are separated by "/".

    Attributes:
        path: the folder or archive.
        names: sorted paths of all files except hidden and system files.
        folders: sorted paths of folders. Folders with files may be missing.
        left_out: one line for each link, special file or repeated name in an archive that is not read.
    """

    path: Path
    names: list[str]
    folders: list[str]
    left_out: list[str]

    @abstractmethod
    def read(self, name: str, max_size: int | None = None) -> bytes:
        """Read the content of a file.

        Args:
            name: path of the file.
            max_size: largest size in bytes. None: no limit for files in folders, :data:`MAX_FILE_SIZE` in archives.

        Raises:
            DataError: if it cannot be read or is too large.
        """

    def _check_size(self, name: str, size: int, max_size: int) -> None:
        """Raise DataError if a size in bytes is above a limit."""
        if size > max_size:
            raise DataError(f"{self.shown(name)}: {size:,} bytes are above the limit of {max_size:,}")

    def shown(self, name: str) -> str:
        """Return the path of a file or folder for messages."""
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
        while links:  # after real folders, so that files have their real paths
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
        """Add the files of a folder and of the real folders below it. Links to folders are added to ``links``."""
        queue = deque([start])
        while queue:
            folder = queue.popleft()
            identity = _identity(self.path / folder)
            if identity in read:
                continue
            read.add(identity)
            for entry in self._entries(folder):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    self.folders.append(name)
                    queue.append(name)
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

    def read(self, name: str, max_size: int | None = None) -> bytes:
        path = self.path / name
        try:
            if max_size is not None:
                self._check_size(name, path.stat().st_size, max_size)
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.shown(name)}: cannot be read ({error.strerror or error})") from error


class ZipTree(FileTree):
    """The files in a zip archive, which is not extracted. Several processes can read it.

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
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name = entry.filename.replace("\\", "/")  # some programs on Windows write backslashes
            if name in self._entries and not name.endswith("/"):
                self.left_out.append(f"{self.shown(name)} (a later entry has the same name)")
            self._entries[name] = entry
        kept = [name for name in self._entries if not any(map(is_ignored, name.split("/")))]
        self.names = sorted(name for name in kept if not name.endswith("/"))
        self.folders = sorted(name.rstrip("/") for name in kept if name.endswith("/"))

    def read(self, name: str, max_size: int | None = None) -> bytes:
        entry = self._entries[name]
        limit = MAX_FILE_SIZE if max_size is None else max_size
        self._check_size(name, entry.file_size, limit)  # zipfile reads no more than this size
        try:
            return self._archive().read(entry.filename)
        except ZIP_ERRORS as error:
            raise DataError(f"{self.shown(name)}: cannot be read from the archive ({one_line(error)})") from error

    def _archive(self) -> zipfile.ZipFile:
        # Forked processes would share the position of an open file.
        process = os.getpid()
        if process not in self._archives:
            self._archives[process] = zipfile.ZipFile(self.path)
        return self._archives[process]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


def open_tree(name: str | Path, flag: str = "path") -> FileTree:
    """Open the folder or archive that the value of a flag names.

    Raises:
        DataError: if it does not exist.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return FolderTree(path)
    if path.exists():
        return ZipTree(path)
    raise DataError(f"{flag}: {missing(path, 'folder or archive')}")


def select_files(tree: FileTree, suffixes: Sequence[str], noun: str) -> list[str]:
    """Select files by their suffixes, and report the others.

    Args:
        tree: the folder or archive.
        suffixes: suffixes in lower case.
        noun: plural noun for the files in messages, such as "images".
    """
    endings = tuple(suffixes)
    chosen = [name for name in tree.names if name.lower().endswith(endings)]
    others = [name for name in tree.names if not name.lower().endswith(endings)]
    if chosen:
        report_left_out(
            str(tree.path), len(others), "files", _endings(others) + f"; {noun} end in {', '.join(suffixes)}"
        )
    report_unread_entries(tree)
    return chosen


def report_unread_entries(tree: FileTree) -> None:
    """Report the links, special files and repeated names that a tree leaves out."""
    report_left_out(str(tree.path), len(tree.left_out), "links, special files or repeated names", _first(tree.left_out))


def report_unused(tree: FileTree, names: Iterable[str], used: Collection[str], noun: str) -> None:
    """Report files that are not part of an example.

    Args:
        tree: the folder or archive.
        names: paths of all files of a kind.
        used: paths of the files that are part of an example.
        noun: plural noun for the others in messages, such as "images outside the folders of classes".
    """
    unused = [name for name in names if name not in used]
    report_left_out(str(tree.path), len(unused), noun, _first(list(map(tree.shown, unused))))


def report_left_out(source: str, number: int, noun: str, detail: str) -> None:
    """Report the number of files that are left out, if any.

    Args:
        source: the folder or archive.
        number: number of files.
        noun: plural noun for them, such as "files".
        detail: their names, or the reason.
    """
    if number:
        rank_zero_info(printable(f"{source}: {number} {noun} left out: {detail}"))


def printable(name: str) -> str:
    """Escape bytes of a path that are not UTF-8, such as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _endings(names: Iterable[str]) -> str:
    """Count files by suffix, the most frequent first."""
    counts = Counter(PurePosixPath(name).suffix.lower() or "without ending" for name in names).most_common()
    more = f", and {len(counts) - 5} other endings" if len(counts) > 5 else ""
    return ", ".join(f"{number} {ending}" for ending, number in counts[:5]) + more


def _first(lines: Sequence[str]) -> str:
    return f"{lines[0]}{', ...' if len(lines) > 1 else ''}" if lines else ""


def _is_link_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_symlink() and entry.is_dir()
    except OSError:  # circular links
        return False


def is_ignored(name: str) -> bool:
    """Check whether a file or folder is hidden or a system file."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _identity(folder: Path) -> tuple[int, int]:
    """Return device and inode of a folder, which are independent of links to it."""
    try:
        status = folder.stat()
    except OSError as error:
        raise DataError(f"{printable(str(folder))}: cannot be read ({error.strerror or error})") from error
    return status.st_dev, status.st_ino
