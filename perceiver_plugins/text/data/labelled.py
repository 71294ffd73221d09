"""Labelled documents, from the rows of a table to batches."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.files import Row
from perceiver_plugins.sdk.data.left_out import LeftOut, reported_before_errors
from perceiver_plugins.sdk.data.loading import IGNORED, BatchDataset, example_rng
from perceiver_plugins.sdk.data.prepared_folder import make_folder
from perceiver_plugins.sdk.data.splits import first_of_each_class
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.chunks import Collator, draw_length, padded_indices
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.labels import Labels
from perceiver_plugins.text.data.prepared import (
    encode,
    flat_column,
    open_arrays,
    quiet_datasets,
    store,
    write_documents,
)
from perceiver_plugins.text.data.streaming import fingerprint

LABEL_FACTS = "labels.json"
"""File of a prepared folder with the names and statistics of the labels."""

DOCUMENT_LABELS, TOKEN_LABELS = "labels", "token_labels"
"""Array names of stored labels: one or several numbers per document, or one per token."""


def prepare_labelled(
    folder: Path,
    load: Callable[[], Mapping[str, Iterable[Row]]],
    labels: Labels,
    encoder: DocumentEncoder,
    val_fraction: float,
    workers: int | None = None,
    batch_size: int = 1000,
    known: Mapping[str, Any] | None = None,
) -> None:
    """Prepare a folder of tokenized, labelled splits, unless it exists and is intact.

    Rows without text and documents without tokens are left out, and their number is reported.

    Args:
        folder: Folder for the prepared data.
        load: Returns the rows of each split, "train" first.
        labels: Parses the labels.
        encoder: Tokenizes the texts.
        val_fraction: Fraction of the training data to hold out if there is no validation split.
        workers: Processes for tokenization; None: one for a small text, up to eight for a large one.
        batch_size: Documents per tokenization batch.
        known: Facts about the labels of the model, for use without training data.

    Raises:
        DataError: If a row is invalid or a split is empty.
    """

    def make(work: Path, result: Path) -> list[str]:
        with quiet_datasets():
            documents, notes = load_labelled(work, load(), labels, val_fraction, known)
        features = {"input_ids": datasets.Sequence(datasets.Value(np.dtype(encoder.dtype).name))}
        features["labels"] = labels.feature
        for split, part in documents.items():
            if len(part):
                file = work / "encoded" / f"{split}.arrow"
                encoded = encode(part, LabelledEncoder(encoder, labels), features, file, workers, batch_size)
                store_documents(result / split, encoded, labels.by_token)
                if missing := len(part) - len(encoded):
                    notes.append(f"{split}: {missing:,} of {len(part):,} texts left out: no token after tokenization")
        with reported_before_errors(notes):
            facts = labels.facts(open_documents(result, "train").labels) if "train" in documents else dict(known or {})
        (result / LABEL_FACTS).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        for split in documents:
            if len(stored := open_documents(result, split).labels):
                notes += labels.notes(stored, split)
        return notes

    make_folder(folder, make)


def load_labelled(
    work: Path,
    splits: Mapping[str, Iterable[Row]],
    labels: Labels,
    val_fraction: float | None,
    known: Mapping[str, Any] | None = None,
) -> tuple[dict[str, datasets.Dataset], list[str]]:
    """Parse the rows of splits into documents, columns ``text`` and ``labels``.

    Args:
        work: Folder for temporary files.
        splits: The rows of each split, "train" first.
        labels: Parses the labels.
        val_fraction: Fraction of the training data to hold out if there is no validation split; None: hold none out.
        known: Facts about the labels of the model, for use without training data.

    Returns:
        The documents of each split, and notes on rows that are left out.

    Raises:
        DataError: If a row is invalid or a split is empty.
    """
    schema = pa.schema({"text": pa.large_string(), "labels": labels.stored})
    documents, notes = {}, []
    if "train" not in splits:
        labels.recall(known or {})
    for split, rows in splits.items():
        left_out = LeftOut()
        texts = _documents(rows, labels, split, left_out)
        documents[split] = write_documents(work / f"{split}.arrow", texts, schema)
        notes += left_out.lines(split)
        if split == "train":
            with reported_before_errors(notes):
                labels.learn()
    if val_fraction is not None and "validation" not in documents and "train" in documents:
        documents["train"], documents["validation"] = hold_out(documents["train"], val_fraction)
    return documents, notes


def _documents(rows: Iterable[Row], labels: Labels, split: str, left_out: LeftOut) -> Iterator[tuple[str, Any]]:
    empty = True
    for location, row in rows:
        text, value = labels.read(row, location)
        left_out.count("no text", location, is_left_out=not text)
        if text:
            empty = False
            yield text, value
    if empty:
        raise DataError(f"the {split} data is empty: no row has a text")


class LabelledEncoder:
    """Encodes documents and labels, for ``datasets.map`` (batched).

    Args:
        encoder: Tokenizes the documents.
        labels: The object that parsed the labels.
    """

    def __init__(self, encoder: DocumentEncoder, labels: Labels) -> None:
        self.encoder = encoder
        self.labels = labels

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = zip(*self.labels.encode(self.encoder, batch["text"], batch["labels"]), strict=True)
        kept = [(ids, label) for ids, label in rows if len(ids)]
        return {"input_ids": [ids for ids, _ in kept], "labels": [label for _, label in kept]}


def hold_out(documents: datasets.Dataset, fraction: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split labelled documents into (train, validation), stratified by class.

    The choice depends only on the texts, so that equal texts of a class stay in one split.

    Args:
        documents: Columns ``text`` and ``labels``.
        fraction: Fraction of the documents for validation: more than 0, less than 1.
    """
    texts = (text for batch in documents.iter(batch_size=1000) for text in batch["text"])
    order = np.array([int.from_bytes(fingerprint(text)[:8], "big") for text in texts], dtype=np.uint64)
    if isinstance(documents.features["labels"], datasets.Value):
        _, classes = np.unique(np.array(documents["labels"][:]), return_inverse=True)
    else:
        classes = np.zeros(len(documents), dtype=np.int64)
    held_out = first_of_each_class(order, classes, fraction)
    return documents.select(np.flatnonzero(~held_out)), documents.select(np.flatnonzero(held_out))


class Documents(NamedTuple):
    """Documents of a split in concatenated arrays, which may be memory-mapped files.

    Attributes:
        input_ids: (tokens,) tokens of all documents.
        starts: (documents + 1,) index of the first token of each document, and the number of tokens.
        labels: (documents,), (documents, targets) or, with ``by_token``, (tokens,).
        by_token: whether each token has a label.
    """

    input_ids: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    by_token: bool


def open_documents(folder: Path, split: str) -> Documents:
    """Memory-map the documents of a split in a prepared folder; a missing split is empty."""
    arrays = open_arrays(folder / split)
    if not arrays:
        return Documents(np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros(0, np.int64), False)
    by_token = TOKEN_LABELS in arrays
    labels = arrays[TOKEN_LABELS if by_token else DOCUMENT_LABELS]
    return Documents(arrays["input_ids"], arrays["starts"], labels, by_token)


def distinct_per_class(documents: Documents) -> Counter[int]:
    """Count the distinct texts of each class; without a class per document, all have class 0."""
    has_class = documents.labels.ndim == 1 and not documents.by_token
    classes = documents.labels.tolist() if has_class else [0] * (len(documents.starts) - 1)
    limits = zip(documents.starts[:-1].tolist(), documents.starts[1:].tolist(), strict=True)
    distinct = {
        (each, documents.input_ids[start:stop].tobytes()) for each, (start, stop) in zip(classes, limits, strict=True)
    }
    return Counter(each for each, _ in distinct)


def store_documents(folder: Path, encoded: datasets.Dataset, by_token: bool) -> None:
    """Write the output of :class:`LabelledEncoder` for a split, to be read by :func:`open_documents`."""
    chunks = encoded.data.column("input_ids").chunks
    starts = np.cumsum(np.concatenate([[0], *(chunk.value_lengths().to_numpy() for chunk in chunks)]))
    labels = flat_column(encoded, "labels")
    if not by_token:
        documents = [piece.reshape(len(chunk), -1) for piece, chunk in zip(labels, chunks, strict=True)]
        single = isinstance(encoded.features["labels"], datasets.Value)
        labels = [piece[:, 0] for piece in documents] if single else documents
    name = TOKEN_LABELS if by_token else DOCUMENT_LABELS
    store(folder, {"input_ids": flat_column(encoded, "input_ids"), "starts": [starts], name: labels})


class LabelledDocuments(BatchDataset):
    """Dataset of labelled documents, which makes whole batches.

    A document that, with special tokens, is longer than ``max_seq_len`` is cut. Random numbers depend only on
    (seed, epoch, index).

    Args:
        documents: The documents.
        collator: Pads the documents of a batch.
        max_seq_len: Tokens per example, at most, special tokens included.
        prefix: Special tokens before each document.
        suffix: Special tokens after each document.
        truncation_side: Side on which longer documents are cut.
        min_seq_len: Shortest length for ``truncate``.
        seed: Seed of all random numbers.
        shift: Start longer documents at a random position in each epoch.
        truncate: Shorten documents to a random length between ``min_seq_len`` and ``max_seq_len`` in each epoch.
    """

    def __init__(
        self,
        documents: Documents,
        collator: Collator,
        max_seq_len: int,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
        truncation_side: Literal["left", "right"] = "right",
        min_seq_len: int = 1,
        seed: int = 0,
        shift: bool = False,
        truncate: bool = False,
    ) -> None:
        self.documents = documents
        self.collator = collator
        self.max_seq_len = max_seq_len
        self.prefix = np.array(prefix, dtype=np.int64)
        self.suffix = np.array(suffix, dtype=np.int64)
        self.truncation_side = truncation_side
        self.min_seq_len = min_seq_len
        self.seed = seed
        self.shift = shift
        self.truncate = truncate

    def __len__(self) -> int:
        return len(self.documents.starts) - 1

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask``, (b, m) int64 each, and ``labels``.

        Labels are (b,) or (b, m), int64, or (b, targets). They are ignored at indices beyond the end, which make the
        ranks' shares equal in evaluation.
        """
        beyond = indices >= len(self)
        indices = np.where(beyond, 0, indices)
        tokens, _, all_labels, by_token = self.documents
        starts, lengths = self._slices(epoch, indices)
        token_indices, _ = padded_indices(starts, lengths)
        input_ids = enclose(tokens[token_indices], lengths, self.prefix, self.suffix)
        inside = np.arange(input_ids.shape[1]) < (lengths + len(self.prefix) + len(self.suffix))[:, None]
        if by_token:
            ignored = (np.full(len(special), IGNORED) for special in (self.prefix, self.suffix))
            labels = enclose(all_labels[token_indices], lengths, *ignored)
            labels[beyond] = IGNORED
            return self.collator(input_ids, inside, labels)
        labels = all_labels[indices]
        labels[beyond] = IGNORED if np.issubdtype(labels.dtype, np.integer) else np.nan
        return {**self.collator(input_ids, inside), "labels": torch.from_numpy(labels)}

    def _slices(self, epoch: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Choose the slice of each document: starts (b,) and lengths (b,)."""
        starts, stops = self.documents.starts[indices], self.documents.starts[indices + 1]
        is_random = self.shift or self.truncate
        rngs = [example_rng(self.seed, epoch, index) for index in indices.tolist()] if is_random else []
        longest = np.full(len(indices), self.max_seq_len)
        if self.truncate:
            longest = np.array([draw_length(self.min_seq_len, self.max_seq_len, rng) for rng in rngs])
        longest = np.maximum(1, longest - len(self.prefix) - len(self.suffix))
        excess = np.maximum(0, stops - starts - longest)
        if self.shift:
            pairs = zip(rngs, excess.tolist(), strict=True)
            starts = starts + [int(rng.integers(most + 1)) if most else 0 for rng, most in pairs]
        elif self.truncation_side == "left":
            starts = starts + excess
        return starts, np.minimum(stops - starts, longest)


def enclose(values: np.ndarray, lengths: np.ndarray, prefix: np.ndarray, suffix: np.ndarray) -> np.ndarray:
    """Add a prefix and a suffix to rows of different lengths.

    Args:
        values: (b, m) rows, padded on the right.
        lengths: (b,) length of each row.
        prefix: (p,) values before each row.
        suffix: (s,) values after each row.

    Returns:
        (b, p + m + s) int64, padded on the right.
    """
    size = len(values)
    padding = np.zeros((size, len(suffix)), np.int64)
    rows = np.concatenate([np.tile(prefix, (size, 1)), values, padding], axis=1, dtype=np.int64)
    ends = len(prefix) + lengths[:, None] + np.arange(len(suffix))
    np.put_along_axis(rows, ends, suffix[None], axis=1)
    return rows
