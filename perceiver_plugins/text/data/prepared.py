"""Cache of tokenized text on disk, read through memory maps."""

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

FORMAT = 4
"""Version of the files and of tokenization, part of the cache key: increase it when either changes."""

SMALL_TEXT = 64 * 2**20
"""Largest number of bytes of text to tokenize in one process and without a progress bar; arbitrary."""

ROWS_PER_BATCH = 1000
"""Documents per Arrow record batch; arbitrary."""

SCHEMA = pa.schema({"text": pa.large_string(), "first": pa.bool_(), "last": pa.bool_()})

Load = Callable[[Path], dict[str, datasets.Dataset]]
"""Function that, given a folder for temporary files, returns the documents of each split: columns ``text`` and, if
documents may be split into pieces, ``first`` and ``last``."""


class Tokens(NamedTuple):
    """Concatenated tokens of a split, which may be memory-mapped files.

    Attributes:
        input_ids: (tokens,) tokens.
        word_parts: (tokens,) word parts, uint8, see :mod:`perceiver_plugins.text.data.encoding`.
    """

    input_ids: np.ndarray
    word_parts: np.ndarray


def cache_folder(root: Path, name: str, key: dict[str, Any]) -> Path:
    """Return the folder of the prepared data that ``key`` identifies."""
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
    """Prepare a folder of tokenized splits, unless it exists and is intact; see :func:`make_folder`.

    Args:
        folder: Folder for the prepared data.
        load: Loads the documents.
        encoder: Tokenizes the documents.
        workers: Processes for tokenization; None: one for a small text, up to eight for a large one.
        batch_size: Documents per tokenization batch.
        notes: Returns warnings about the documents after loading, one line each.
    """

    def make(work: Path, tokens: Path) -> Sequence[str]:
        with quiet_datasets():
            splits = load(work)
        columns = encoder.columns
        features = {name: datasets.Sequence(datasets.Value(dtype)) for name, dtype in columns.items()}
        for split, documents in splits.items():
            if len(documents):
                encoded = encode(documents, encoder, features, work / "encoded" / f"{split}.arrow", workers, batch_size)
                store(tokens / split, {name: flat_column(encoded, name) for name in columns})
        return notes()

    make_folder(folder, make)


def flat_column(encoded: datasets.Dataset, name: str) -> list[np.ndarray]:
    """Return the numbers of a column of lists or numbers, as consecutive arrays."""
    chunks = encoded.data.column(name).chunks
    return [(chunk.flatten() if pa.types.is_list(chunk.type) else chunk).to_numpy() for chunk in chunks]


def store(folder: Path, columns: Mapping[str, list[np.ndarray]]) -> None:
    """Write one file per column, to be read by :func:`open_arrays`.

    Args:
        folder: Folder for the files.
        columns: Numbers of each column, as consecutive arrays.
    """
    folder.mkdir(parents=True)
    for name, pieces in columns.items():
        shape = (sum(map(len, pieces)), *pieces[0].shape[1:])
        np.concatenate(pieces, out=np.lib.format.open_memmap(folder / f"{name}.npy", "w+", pieces[0].dtype, shape))


def open_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Memory-map the arrays that :func:`store` wrote to a folder, by name; a missing folder has no arrays."""
    return {file.stem: np.asarray(np.load(file, mmap_mode="r")) for file in folder.glob("*.npy")}


def write_documents(path: Path, documents: Iterable[Sequence[Any]], schema: pa.Schema = SCHEMA) -> datasets.Dataset:
    """Write documents to an Arrow file in batches, and memory-map it.

    Args:
        path: The file.
        documents: Values of each document, in the order of the schema's columns.
        schema: The columns; by default those of :class:`~perceiver_plugins.sdk.data.files.Piece`.
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
            if len(rows) == ROWS_PER_BATCH:
                flush()
        if rows:
            flush()
    return datasets.Dataset.from_file(str(path))


def split_documents(
    documents: datasets.Dataset, fraction: float, work: Path
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split documents into (train, validation), the same for every seed.

    If the fraction amounts to two documents or more, whole documents are drawn at random. Otherwise (one long text, for
    example), the end of each document is held out.

    Args:
        documents: Column ``text`` and, if documents are split into pieces, ``first`` and ``last``.
        fraction: Fraction of the documents, or of each document, for validation: more than 0, less than 1.
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
    """Yield the beginnings of the documents, or (``tail``) their ends."""
    for begin, end in zip(starts, [*starts[1:], len(documents)], strict=True):
        texts = [documents[row]["text"] or "" for row in range(int(begin), int(end))]
        size = sum(map(len, texts))
        cut = size - max(1, round(size * fraction))
        kept: list[str] = []
        offset = 0  # characters before the piece
        for text in texts:
            local_cut = min(max(cut - offset, 0), len(text))
            # prefer a word boundary before the cut
            if 0 < local_cut < len(text):
                local_cut = text.rfind(" ", 0, local_cut) + 1 or local_cut
            kept.append(text[local_cut:] if tail else text[:local_cut])
            offset += len(text)
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
    """Encode documents into a memory-mapped Arrow file.

    Args:
        documents: Documents of a split.
        encoder: Maps a batch of documents, by column, to encoded rows, by column.
        features: Types of the encoded columns.
        path: The file, named by the split. Each of several processes writes a file with a number in its name.
        workers: Processes; None: one for a small text, up to eight for a large one.
        batch_size: Documents per batch.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    large = documents.data.nbytes > SMALL_TEXT
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
            # the folder's name identifies the data; hashing the encoder may take longer than tokenization
            new_fingerprint=uuid.uuid4().hex,
            load_from_cache_file=False,
            desc=f"tokenizing ({path.stem})",
        )


@contextmanager
def quiet_datasets(quiet: bool = True) -> Iterator[None]:
    """Disable the progress bars of ``datasets`` in the context."""
    disabled = datasets.are_progress_bars_disabled()
    if quiet:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if quiet and not disabled:
            datasets.enable_progress_bars()
