"""Tokenised text on disk: made once, kept in a cache, read through memory maps."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa

from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.sdk.data.prepared_folder import make_folder
from perceiver_plugins.sdk.data.splits import draw
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_registry.remote import refuse_remote

FORMAT = 3
"""Version of what is stored, and of how documents become tokens; to be raised when either changes."""

SMALL = 64 * 2**20
"""Bytes of text that are prepared in one process and without a progress bar."""

ROWS = 1000
"""Documents that are written at once."""

SCHEMA = pa.schema({"text": pa.large_string(), "first": pa.bool_(), "last": pa.bool_()})

Load = Callable[[Path], dict[str, datasets.Dataset]]
"""Given a folder for temporary files, returns the documents of each split: columns ``text`` and, if documents
may come in pieces, ``first`` and ``last``."""


class Tokens(NamedTuple):
    """A split's tokens, one document after the other, in long arrays that may be memory-mapped files.

    Attributes:
        input_ids: (tokens,) the tokens.
        word_parts: (tokens,) uint8, what each is part of, see :mod:`perceiver_plugins.text.data.encoding`.
    """

    input_ids: np.ndarray
    word_parts: np.ndarray


def cache_root(cache_dir: str | None) -> Path:
    """The folder for prepared data: as given, or ``$PERCEIVER_CACHE``, or ``~/.cache/perceiver``.

    Raises:
        UserError: if it is a remote path.
    """
    refuse_remote("cache_dir", cache_dir or os.environ.get("PERCEIVER_CACHE"))
    return Path(cache_dir or os.environ.get("PERCEIVER_CACHE") or "~/.cache/perceiver").expanduser().absolute()


def cache_folder(root: Path, name: str, key: dict[str, Any]) -> Path:
    """The folder for the data that ``key`` describes in full."""
    text = json.dumps({"format": FORMAT, **key}, sort_keys=True, default=str)
    return root / "text" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def prepare(
    folder: Path,
    load: Load,
    encoder: DocumentEncoder,
    workers: int | None = None,
    batch_size: int = 1000,
    notes: Callable[[], Sequence[str]] = tuple,
) -> None:
    """Make the folder with the tokenised splits, unless it exists and is intact; see :func:`make_folder`.

    Args:
        folder: Where the data will be.
        load: Yields the documents.
        encoder: Makes tokens of them.
        workers: Processes for tokenising; None: one for a small text, up to eight cores for a large one.
        batch_size: Documents per step of tokenising.
        notes: After loading, returns a line for each thing to report of the documents.
    """

    def make(work: Path, tokens: Path) -> Sequence[str]:
        with quiet_datasets():
            splits = load(work)
        columns = {"input_ids": np.dtype(encoder.dtype).name, "word_parts": "uint8"}
        features = {name: datasets.Sequence(datasets.Value(dtype)) for name, dtype in columns.items()}
        for split, documents in splits.items():
            if len(documents):
                encoded = encode(documents, encoder, features, work / "encoded" / f"{split}.arrow", workers, batch_size)
                store(tokens / split, {name: flat_column(encoded, name) for name in columns})
        return notes()

    make_folder(folder, make)


def flat_column(encoded: datasets.Dataset, name: str) -> list[np.ndarray]:
    """The numbers of a column, of lists or of single ones, in consecutive pieces."""
    chunks = encoded.data.column(name).chunks
    return [(chunk.flatten() if pa.types.is_list(chunk.type) else chunk).to_numpy() for chunk in chunks]


def store(folder: Path, columns: Mapping[str, list[np.ndarray]]) -> None:
    """Write numbers into a file for each column, from which :func:`open_arrays` maps them as one array.

    Args:
        folder: Where the files will be.
        columns: The numbers of each column, in consecutive pieces.
    """
    folder.mkdir(parents=True)
    for name, pieces in columns.items():
        shape = (sum(map(len, pieces)), *pieces[0].shape[1:])
        np.concatenate(pieces, out=np.lib.format.open_memmap(folder / f"{name}.npy", "w+", pieces[0].dtype, shape))


def open_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Map the arrays that :func:`store` wrote into a folder, by name; none if there is no such folder."""
    return {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in folder.glob("*.npy")}


def open_split(folder: Path, split: str) -> Tokens:
    """The tokens and word parts of a split of a prepared folder; empty if there is no such split."""
    arrays = open_arrays(folder / split)
    return Tokens(**arrays) if arrays else Tokens(np.zeros(0, np.uint16), np.zeros(0, np.uint8))


def write_documents(path: Path, documents: Iterable[Sequence[Any]], schema: pa.Schema = SCHEMA) -> datasets.Dataset:
    """Write documents into an Arrow file as they come, and map it.

    Args:
        path: The file.
        documents: The values of each, in the order of the schema: pieces of text, unless another schema is given.
        schema: The columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Sequence[Any]] = []
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:

        def flush() -> None:
            columns = zip(*rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            rows.clear()

        for document in documents:
            rows.append(document)
            if len(rows) == ROWS:
                flush()
        if rows:
            flush()
    return datasets.Dataset.from_file(str(path))


def split_documents(
    documents: datasets.Dataset, fraction: float, work: Path
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Set a fraction of the documents aside: (train, validation).

    Which, depends on the documents alone. Where they are many, some are drawn by chance; where they are few
    (one long text, for example), the end of each is cut off.

    Args:
        documents: Column ``text`` and, if documents come in pieces, ``first`` and ``last``.
        fraction: Part of the documents, or of each, for validation: more than 0, less than 1.
        work: Folder for temporary files.
    """
    if "first" in documents.column_names:
        starts = np.flatnonzero(np.array(documents.with_format("arrow")["first"][:]))
    else:
        starts = np.arange(len(documents))
    count = round(len(starts) * fraction)
    if count >= 2 and count < len(starts):
        held_out = draw(len(starts), count)
        lengths = np.diff([*starts, len(documents)])
        rows = np.repeat(held_out, lengths)
        return documents.select(np.flatnonzero(~rows)), documents.select(np.flatnonzero(rows))
    parts = [list(_cut(documents, starts, fraction, tail)) for tail in (False, True)]
    train, validation = (write_documents(work / f"cut-{i}.arrow", part) for i, part in enumerate(parts))
    return train, validation


def _cut(documents: datasets.Dataset, starts: np.ndarray, fraction: float, tail: bool) -> Iterator[Piece]:
    """The beginnings of the documents, or their ends."""
    for begin, end in zip(starts, [*starts[1:], len(documents)], strict=True):
        texts = [documents[row]["text"] or "" for row in range(int(begin), int(end))]
        size = sum(map(len, texts))
        cut = size - max(1, round(size * fraction))
        kept: list[str] = []
        position = 0
        for text in texts:
            here = min(max(cut - position, 0), len(text))
            # at the end of a word, where there is one in this piece
            if 0 < here < len(text):
                here = text.rfind(" ", 0, here) + 1 or here
            kept.append(text[here:] if tail else text[:here])
            position += len(text)
        kept = [text for text in kept if text]
        for index, text in enumerate(kept):
            yield Piece(text, index == 0, index == len(kept) - 1)


def encode(
    documents: datasets.Dataset,
    encoder: Callable[[dict[str, list[Any]]], dict[str, list[Any]]],
    features: dict[str, Any],
    path: Path,
    workers: int | None = None,
    batch_size: int = 1000,
) -> datasets.Dataset:
    """What an encoder makes of documents, in a file that is mapped, or several.

    Args:
        documents: The documents of a split, which the file is named by.
        encoder: Given a batch of documents by column, returns rows by column.
        features: The types of these columns.
        path: The file. With several processes, each writes one of its own, with a number in its name.
        workers: Processes; None: one for small documents, up to eight cores for large ones.
        batch_size: Documents per batch.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    large = documents.data.nbytes > SMALL
    processes = min(workers or (min(8, os.cpu_count() or 1) if large else 1), len(documents))
    with quiet_datasets(not large):
        return documents.map(
            encoder,
            batched=True,
            batch_size=batch_size,
            num_proc=processes if processes > 1 else None,
            remove_columns=documents.column_names,
            features=datasets.Features(features),
            cache_file_name=str(path),
            # the name of the folder says all; hashing the encoder would take longer than some texts
            new_fingerprint=uuid.uuid4().hex,
            load_from_cache_file=False,
            desc=f"tokenizing ({path.stem})",
        )


@contextmanager
def quiet_datasets(quiet: bool = True) -> Iterator[None]:
    """No progress bars of ``datasets`` meanwhile."""
    disabled = datasets.are_progress_bars_disabled()
    if quiet:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if quiet and not disabled:
            datasets.enable_progress_bars()
