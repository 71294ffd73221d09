"""Journals of embeddings, from which interrupted runs are resumed."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import operator
import os
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from perceiver_cli.checkpoint_files import hidden_name, lock
from perceiver_cli.notes import note
from perceiver_registry import UserError, config_to_dict

HEADER = b"perceiver-embeddings "
"""First bytes of each journal, before the run's identity."""

MAX_LINE = 2**24
"""Largest number of bytes of a line. Arbitrary: more than the shapes of any batch take."""

DAMAGE_ERRORS = (ValueError, KeyError, TypeError, RecursionError)
"""Errors of reading a damaged record."""


class Journal:
    """File of the batches that a run has embedded, next to its output.

    Format: a line with the run's identity; then, for each batch, a JSON line with its key, the shapes of its embeddings
    and a checksum (CRC-32), followed by their numbers (little-endian float32).

    A run with the same identity reuses the recorded batches. Opening a journal does not change its file. The first
    recorded batch replaces a journal with another identity, and overwrites an incomplete or damaged record at the end.

    Args:
        path: the file.
        identity: digest of everything that embeddings depend on, except the batch.

    Raises:
        UserError: if another run writes the file, or if it is not a journal.
        OSError: if the file cannot be opened.
    """

    def __init__(self, path: Path, identity: str):
        self.path = path
        self._header = HEADER + f"{identity}\n".encode()
        self._offsets: dict[str, int] = {}
        self._end = 0
        self._file = _open(path)
        try:
            self.has_other_identity = self._read_index()
        except BaseException:
            self._file.close()
            raise

    @property
    def num_recorded(self) -> int:
        """Number of batches in the file."""
        return len(self._offsets)

    def find(self, key: str) -> list[np.ndarray] | None:
        """Return the embeddings of a batch, or None if they are missing or damaged."""
        if key not in self._offsets:
            return None
        self._file.seek(self._offsets[key])
        try:
            entry, shapes = self._read_line()
            numbers = self._file.read(_size(shapes))
            if entry["key"] != key or entry["crc32"] != zlib.crc32(numbers):
                return None
        except DAMAGE_ERRORS:
            return None
        flat = np.frombuffer(numbers, "<f4")
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        return [each.reshape(shape) for each, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]

    def record(self, key: str, embeddings: Sequence[np.ndarray]) -> None:
        """Record the embeddings of a batch.

        Raises:
            OSError: if the file cannot be written; the error names it.
        """
        numbers = b"".join(each.astype("<f4").tobytes() for each in embeddings)
        line = json.dumps({"key": key, "shapes": [each.shape for each in embeddings], "crc32": zlib.crc32(numbers)})
        header = b"" if self._end else self._header
        try:
            self._file.seek(self._end)
            self._file.truncate()
            self._file.write(b"".join([header, f"{line}\n".encode(), numbers]))
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        self._offsets[key] = self._end + len(header)
        self._end = self._file.tell()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):  # record has already reported a failed write
            self._file.close()

    def _read_index(self) -> bool:
        """Lock the file and find its complete records; return whether it has another identity."""
        try:
            lock(self._file)
        except BlockingIOError as error:
            raise UserError(f"{self.path}: another run is writing the same output (wait for its end)") from error
        except OSError:  # some network file systems have no locks
            pass
        found = self._file.readline(len(self._header))
        if not HEADER.startswith(found[: len(HEADER)]):
            raise _not_a_journal(self.path)
        if found != self._header:
            return len(found) == len(self._header)
        size = os.fstat(self._file.fileno()).st_size
        self._end = self._file.tell()
        while self._end < size:
            try:
                entry, shapes = self._read_line()
                end = self._file.tell() + _size(shapes)
                if not isinstance(entry["key"], str) or end > size:
                    break
            except DAMAGE_ERRORS:
                break
            self._offsets[entry["key"]] = self._end
            self._end = self._file.seek(end)
        return False

    def _read_line(self) -> tuple[dict[str, Any], list[list[int]]]:
        """Read the line of a record, and return its fields and its shapes.

        Raises:
            ValueError, KeyError, TypeError, RecursionError: if the line is damaged.
        """
        entry = json.loads(self._file.readline(MAX_LINE))
        shapes = entry["shapes"]
        if not isinstance(shapes, list) or not shapes or not all(map(_is_shape, shapes)):
            raise ValueError("shapes")
        return entry, shapes


def _is_shape(value: Any) -> bool:
    """Return whether a value is the shape of an embedding, pooled or not."""
    is_list = isinstance(value, list) and len(value) in (1, 2)
    return is_list and all(type(size) is int and 0 <= size < 2**31 for size in value)


def _size(shapes: Sequence[Sequence[int]]) -> int:
    """Return the number of bytes of embeddings."""
    return 4 * sum(math.prod(shape) for shape in shapes)


def _open(path: Path) -> IO[bytes]:
    """Open or create a journal, without following a symbolic link.

    Raises:
        UserError: if it is not a regular file.
        OSError: if it cannot be opened; the error names it.
    """
    special = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))  # Windows has only the last
    try:
        descriptor = os.open(path, functools.reduce(operator.or_, special, os.O_RDWR | os.O_CREAT), 0o666)
    except OSError as error:
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise _not_a_journal(path) from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe or a device
        os.close(descriptor)
        raise _not_a_journal(path)
    return os.fdopen(descriptor, "r+b")


def _not_a_journal(path: Path) -> UserError:
    return UserError(f"{path}: not a journal of perceiver embed, which needs this name (move it elsewhere)")


@contextlib.contextmanager
def opened_journal(output: Path, identity: str) -> Iterator[Journal]:
    """Open the journal of an output file. Its file is removed after success, or if no batch was recorded.

    Args:
        output: the output file.
        identity: as for :class:`Journal`.

    Raises:
        UserError: as of :class:`Journal`.
        OSError: as of :class:`Journal`.
    """
    path = output.with_name(f"{hidden_name(output.name)}.journal")
    journal = Journal(path, identity)
    if journal.has_other_identity:
        note(f"perceiver: {output}: an interrupted run had another model or other options: embedding all inputs")
    elif journal.num_recorded:
        note(f"perceiver: {output}: resuming an interrupted run (batches recorded: {journal.num_recorded:,})")
    try:
        yield journal
    except BaseException as error:
        if journal.num_recorded:
            command = "a corrected command with this --output" if isinstance(error, UserError) else "the same command"
            recorded = f"batches recorded: {journal.num_recorded:,}"
            note(f"perceiver: {output}: incomplete; {command} resumes ({recorded})")
        elif not journal.has_other_identity:
            path.unlink(missing_ok=True)
        raise
    else:
        path.unlink(missing_ok=True)
    finally:
        journal.close()


def identity_of(model: Any, options: Mapping[str, Any]) -> str:
    """Return a digest of a model's config and weights, and of options.

    Args:
        model: the model.
        options: plain data.
    """
    digest = hashlib.sha256()
    config = config_to_dict(model.config)
    digest.update(json.dumps([config, options], sort_keys=True, default=str).encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
