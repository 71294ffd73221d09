"""Journals of embeddings, with which an interrupted run is resumed."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from perceiver_cli.checkpoint_files import lock, remove_partial_files_of
from perceiver_cli.notes import note
from perceiver_cli.vectors import ids_file
from perceiver_registry import UserError, config_to_dict


class Journal:
    """File of the batches that a run has embedded, beside its output.

    A line with the run's identity, then for each batch a line with its key and the shapes of its embeddings, and their
    numbers. A run of the same identity takes the embeddings from the file as long as its batches have the recorded
    keys. The first batch with another key replaces the rest; an incomplete one is dropped.

    Args:
        path: the file.
        identity: digest of all that embeddings depend on, other than the batch.

    Attributes:
        num_recorded: batches in the file.

    Raises:
        UserError: if another run writes the file.
        OSError: if the file cannot be written.
    """

    def __init__(self, path: Path, identity: str):
        self.path = path
        self._file: IO[bytes] = path.open("a+b")
        try:
            lock(self._file)
        except BlockingIOError as error:
            self._file.close()
            raise UserError(f"{path}: another run is writing the same output (wait for its end)") from error
        except OSError:  # some network file systems have no locks
            pass
        header = f"{identity}\n".encode()
        self._file.seek(0)
        self.is_of_another_run = self._file.readline() not in (header, b"")
        if self.is_of_another_run or self._file.tell() == 0:
            self._truncate(0)
            self._file.write(header)
        start = self._file.tell()
        self.num_recorded = sum(1 for _ in iter(self._next, None))
        self._truncate(self._file.tell())
        self._num_left = self.num_recorded
        self._file.seek(start)

    def find(self, key: str) -> list[np.ndarray] | None:
        """Return the embeddings of the next batch, or None if it has another key."""
        position = self._file.tell()
        found = self._next() if self._num_left else None
        if found is None or found[0] != key:
            self._file.seek(position)
            return None
        self._num_left -= 1
        return found[1]

    def record(self, key: str, embeddings: Sequence[np.ndarray]) -> None:
        """Record the embeddings of a batch in place of all batches that :meth:`find` has not returned."""
        if self._num_left:
            self._truncate(self._file.tell())
            self.num_recorded, self._num_left = self.num_recorded - self._num_left, 0
        line = json.dumps({"key": key, "shapes": [each.shape for each in embeddings]})
        self._file.write(b"".join([f"{line}\n".encode(), *(each.astype("<f4").tobytes() for each in embeddings)]))
        self._file.flush()
        self.num_recorded += 1

    def _next(self) -> tuple[str, list[np.ndarray]] | None:
        """Read the next batch; None, and the same position, if it is missing or incomplete."""
        position = self._file.tell()
        try:
            entry = json.loads(self._file.readline())
            shapes = [tuple(shape) for shape in entry["shapes"]]
            arrays = [np.frombuffer(self._file.read(4 * int(np.prod(shape))), "<f4").reshape(shape) for shape in shapes]
            return entry["key"], arrays
        except (ValueError, KeyError, TypeError):
            self._file.seek(position)
            return None

    def _truncate(self, size: int) -> None:
        self._file.truncate(size)
        self._file.seek(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def resumable(output: Path, identity: str) -> Iterator[Journal]:
    """Open the journal of an output file. It is kept if the run is interrupted after a batch, or fails.

    Args:
        output: the output file.
        identity: as for :class:`Journal`.

    Raises:
        UserError: as of :class:`Journal`.
        OSError: as of :class:`Journal`.
    """
    path = output.with_name(f".{output.name}.journal")
    try:
        journal = Journal(path, identity)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(output)) from error
    if journal.is_of_another_run:
        note(f"perceiver: {output}: an interrupted run had another model or other options: embedding all inputs")
    elif journal.num_recorded:
        note(f"perceiver: {output}: resuming an interrupted run (batches done: {journal.num_recorded:,})")
    for each in (output, ids_file(output)):
        remove_partial_files_of(each)
    try:
        yield journal
    except BaseException as error:
        if isinstance(error, UserError) or not journal.num_recorded:  # the same command would fail again
            path.unlink()
        else:
            note(f"perceiver: {output}: incomplete; the same command resumes (batches done: {journal.num_recorded:,})")
        raise
    else:
        path.unlink()
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
