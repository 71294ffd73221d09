"""Checkpoint files: written completely or not at all, and removed one file at a time."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, TextIO

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from perceiver_cli.record import check_record
from perceiver_registry.checkpoint import Checkpoint

PARTIAL = ".partial"
"""Suffix of files that are still being written."""

MAX_HIDDEN_NAME = 200
"""Most bytes of a file name that the names of its hidden files contain. File systems allow 255, suffix included."""

SHARDED = "meta.pt"
"""File that every sharded checkpoint of Lightning, which is a folder, contains."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint next to its target and move it there: a killed run leaves the old one or the new one.

    Lightning's own implementation writes to the folder for temporary files, from which a move may be a copy; it removes
    whole folders, and writes records that cannot be read back.

    Args:
        loaded: a checkpoint that is already read and checked. Its content is returned once, without reading the file.
    """

    def __init__(self, loaded: Checkpoint | None = None):
        self._loaded = loaded

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        if self._loaded is not None and self._loaded.content and Path(path) == self._loaded.path:
            return self._loaded.take()
        return super().load_checkpoint(path, *args, **options)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        check_record(checkpoint)
        with replacing(Path(path)) as file:
            torch.save(checkpoint, file)

    def remove_checkpoint(self, path: Any) -> None:
        """Remove one checkpoint, never any other folder."""
        path = Path(path)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif (path / SHARDED).is_file():
            shutil.rmtree(path)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces ``path`` once it is complete. A symbolic link is replaced, not followed.

    Partial files of ``path`` that killed processes left are removed.

    Raises:
        OSError: if the file cannot be written; the error names it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_unlocked(path.parent.glob(f"{glob.escape(hidden_name(path.name))}.{'[0-9a-f]' * 8}{PARTIAL}"))
    partial, file = _create_locked(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None or str(cause.filename or partial) != str(partial):  # an error of another file
            raise
        raise OSError(cause.errno, cause.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_text(path: Path, errors: str = "strict") -> Iterator[TextIO]:
    """Open a new UTF-8 file that replaces ``path`` once it is complete, as :func:`replacing` does.

    Args:
        path: the file.
        errors: the error handler for characters that cannot be encoded.

    Raises:
        OSError: if the file cannot be written; the error names it.
    """
    with replacing(path) as file:
        stream = io.TextIOWrapper(file, encoding="utf-8", errors=errors, newline="")
        yield stream
        stream.flush()
        stream.detach()  # the outer context closes the file


def remove_partial_files(root: Path) -> None:
    """Remove partial files of killed runs in all run folders below ``root``; running ones lock theirs."""
    _remove_unlocked(root.glob(f"*/*/checkpoints/.*{PARTIAL}"))


def hidden_name(name: str) -> str:
    """Return the prefix of the names of a file's hidden files: a dot and its name, or a digest of a long name."""
    encoded = os.fsencode(name)
    return f".{name if len(encoded) <= MAX_HIDDEN_NAME else hashlib.sha256(encoded).hexdigest()}"


def _remove_unlocked(partials: Iterable[Path]) -> None:
    for partial in partials:
        with contextlib.suppress(OSError), partial.open("r+b") as file:
            lock(file)
            partial.unlink()


def _create_locked(path: Path) -> tuple[Path, IO[bytes]]:
    """Create a file next to ``path``, locked while this process writes it."""
    while True:
        partial = path.with_name(f"{hidden_name(path.name)}.{uuid.uuid4().hex[:8]}{PARTIAL}")
        file = partial.open("xb")
        with contextlib.suppress(OSError):  # some network file systems have no locks
            lock(file)
        if partial.exists():  # another run may have removed it before it was locked
            return partial, file
        file.close()


def lock(file: IO[bytes]) -> None:
    """Lock a file until this process closes it.

    Raises:
        OSError: if another process has locked it, or if the file system has no locks.
    """
    try:
        import fcntl
    except ImportError as error:  # Windows, where an open file cannot be removed
        raise OSError("no file locks") from error
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the ``OSError`` that caused an error: torch raises one of its zip writer instead."""
    while error is not None:
        if isinstance(error, OSError):
            return error
        error = error.__cause__ or error.__context__
    return None
