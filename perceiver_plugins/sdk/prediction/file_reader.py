"""Reader of files of one kind, in folders and zip archives as well."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from perceiver_plugins.sdk.data.file_trees import ZipTree
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.data.paths import as_path, is_file
from perceiver_plugins.sdk.data.tree_files import require_files
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.reader import Reader, files_named

ARCHIVE = ".zip"
"""Suffix of archives."""


class ArchivedFile(str):
    """File in a zip archive, as the string that messages show, with the archive and the name in it.

    Args:
        archive: the archive.
        name: path of the file in the archive.
    """

    archive: ZipTree
    name: str

    def __new__(cls, archive: ZipTree, name: str) -> ArchivedFile:
        file = super().__new__(cls, archive.shown(name))
        file.archive, file.name = archive, name
        return file

    def read(self) -> bytes:
        """Read the content of the file.

        Raises:
            DataError: if it cannot be read.
        """
        return self.archive.read(self.name)


class FileReader(Reader):
    """Base class of readers of files. Subclasses set :attr:`suffixes`, and implement :meth:`decode` and ``collate``.

    Args:
        data: the ``description()`` of the data module, from the checkpoint.
        input_adapter: the model's input adapter.
    """

    suffixes: ClassVar[Sequence[str]]
    """Suffixes of the files, in lower case: ``(".wav",)``."""

    noun: ClassVar[str] = "files"
    """Plural noun for the files in messages, such as "images"."""

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """Expand folders, zip archives and patterns to files.

        Raises:
            UserError: if a folder or archive has no such file, or if a pattern has no match.
        """
        files = files_named(inputs, self.suffixes, self.noun)
        return [source for name in files for source in self._files_in(name)]

    def _files_in(self, name: str) -> Sequence[str]:
        """Return the files in a zip archive, or the name of any other file."""
        if not (name.lower().endswith(ARCHIVE) and is_file(name)):
            return [name]
        archive = ZipTree(as_path(name))
        return [ArchivedFile(archive, file) for file in require_files(archive, self.suffixes, self.noun)]

    def read(self, source: str) -> Any:
        """Read and decode a file.

        Raises:
            UserError: if it cannot be read.
        """
        return self.decode(read_content(source), source)

    @abstractmethod
    def decode(self, content: bytes, name: str) -> Any:
        """Decode the content of a file to an example for ``collate``.

        Args:
            content: content of the file.
            name: path of the file, for messages.

        Raises:
            UserError: if it cannot be decoded; the message is one line that names the file.
        """


def read_content(source: str) -> bytes:
    """Read the content of a file that :meth:`FileReader.expand` returned.

    Raises:
        DataError: if it cannot be read.
    """
    if isinstance(source, ArchivedFile):
        return source.read()
    try:
        return as_path(source).read_bytes()
    except ValueError as error:  # a null byte in the name
        raise DataError(f"{shorten_path(source)}: cannot be read ({error})") from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror or error})") from error
