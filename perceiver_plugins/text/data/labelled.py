"""Labelled examples: a document each, from the rows of a table to batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.files import Row
from perceiver_plugins.sdk.data.left_out import LeftOut
from perceiver_plugins.sdk.data.loading import IGNORED, BatchDataset, example_rng
from perceiver_plugins.sdk.data.prepared_folder import make_folder
from perceiver_plugins.sdk.data.splits import first_of_each_class
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.chunks import Collator, truncated_length, windows
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

FACTS = "labels.json"
"""The file in a prepared folder with what models need to know of the labels."""

BY_DOCUMENT, BY_TOKEN = "labels", "token_labels"
"""What the labels of a split are stored as: one or some numbers for each document, or one for each token."""


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
    """Make the folder with the tokenised and labelled splits, unless it exists and is intact.

    Rows without a text are left out, and documents that the tokenizer makes no token of. How many, is reported.

    Args:
        folder: Where the data will be.
        load: Yields the rows of each split, those for training first.
        labels: Reads them.
        encoder: Makes tokens of texts.
        val_fraction: Part of the training data that is set aside where there is no split to validate on.
        workers: Processes for tokenising; None: one for a small text, up to eight cores for a large one.
        batch_size: Documents per step of tokenising.
        known: What models need to know of the labels where there is no training data.

    Raises:
        DataError: If something is wrong with the rows.
    """
    schema = pa.schema({"text": pa.large_string(), "labels": labels.stored})

    def make(work: Path, result: Path) -> list[str]:
        documents, notes = {}, []
        with quiet_datasets():
            splits = load()
            if "train" not in splits:
                labels.recall(known or {})
            for split, rows in splits.items():
                left_out = LeftOut()
                texts = _documents(rows, labels, split, left_out)
                documents[split] = write_documents(work / f"{split}.arrow", texts, schema)
                notes += left_out.lines(split)
                if split == "train":
                    labels.learn()
        if "validation" not in documents and "train" in documents:
            documents["train"], documents["validation"] = set_aside(documents["train"], val_fraction)
        features = {"input_ids": datasets.Sequence(datasets.Value(np.dtype(encoder.dtype).name))}
        features["labels"] = labels.feature
        for split, part in documents.items():
            if len(part):
                file = work / "encoded" / f"{split}.arrow"
                encoded = encode(part, LabelledEncoder(encoder, labels), features, file, workers, batch_size)
                store_documents(result / split, encoded, labels.by_token)
                if missing := len(part) - len(encoded):
                    notes.append(f"{split}: {missing:,} of {len(part):,} texts left out: the tokenizer finds no token")
        facts = labels.facts(open_documents(result, "train").labels) if "train" in documents else dict(known or {})
        (result / FACTS).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        for split in documents:
            notes += labels.notes(open_documents(result, split).labels, split)
        return notes

    make_folder(folder, make)


def _documents(rows: Iterable[Row], labels: Labels, split: str, left_out: LeftOut) -> Iterator[tuple[str, Any]]:
    empty = True
    for place, row in rows:
        text, value = labels.read(row, place)
        left_out.count("no text", place, is_left_out=not text)
        if text:
            empty = False
            yield text, value
    if empty:
        raise DataError(f"the {split} data is empty: no row has a text")


class LabelledEncoder:
    """Makes tokens and numbers of documents and labels, for ``datasets.map`` in batches.

    Args:
        encoder: Makes tokens.
        labels: What read the labels.
    """

    def __init__(self, encoder: DocumentEncoder, labels: Labels) -> None:
        self.encoder = encoder
        self.labels = labels

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        rows = zip(*self.labels.encode(self.encoder, batch["text"], batch["labels"]), strict=True)
        kept = [(ids, label) for ids, label in rows if len(ids)]
        return {"input_ids": [ids for ids, _ in kept], "labels": [label for _, label in kept]}


def set_aside(documents: datasets.Dataset, fraction: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Set a fraction of labelled documents aside: (train, validation).

    Of each class, the same fraction; which documents, depends on their texts alone, so that equal texts of a class
    stay together.

    Args:
        documents: Columns ``text`` and ``labels``.
        fraction: Part of the documents for validation: more than 0, less than 1.
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
    """The documents of a split, in long arrays that may be memory-mapped files.

    Attributes:
        input_ids: (tokens,) their tokens, one document after the other.
        starts: (documents + 1,) where each begins, and where the last one ends.
        labels: what is to be predicted: (documents,), (documents, numbers) or, if each token has a label, (tokens,).
        by_token: whether each token has a label.
    """

    input_ids: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    by_token: bool


def open_documents(folder: Path, split: str) -> Documents:
    """Map the documents of a split in a prepared folder; none if there is no such split."""
    arrays = open_arrays(folder / split)
    if not arrays:
        return Documents(np.zeros(0, np.uint16), np.zeros(1, np.int64), np.zeros(0, np.int64), False)
    by_token = BY_TOKEN in arrays
    return Documents(arrays["input_ids"], arrays["starts"], arrays[BY_TOKEN if by_token else BY_DOCUMENT], by_token)


def store_documents(folder: Path, encoded: datasets.Dataset, by_token: bool) -> None:
    """Write what :class:`LabelledEncoder` makes of the documents of a split, for :func:`open_documents`."""
    chunks = encoded.data.column("input_ids").chunks
    starts = np.cumsum(np.concatenate([[0], *(chunk.value_lengths().to_numpy() for chunk in chunks)]))
    labels = flat_column(encoded, "labels")
    if not by_token:
        documents = [piece.reshape(len(chunk), -1) for piece, chunk in zip(labels, chunks, strict=True)]
        single = isinstance(encoded.features["labels"], datasets.Value)
        labels = [piece[:, 0] for piece in documents] if single else documents
    name = BY_TOKEN if by_token else BY_DOCUMENT
    store(folder, {"input_ids": flat_column(encoded, "input_ids"), "starts": [starts], name: labels})


class LabelledDocuments(BatchDataset):
    """Documents of at most ``max_seq_len`` tokens, special ones around them included, with labels; a batch at a time.

    Of a longer one, a piece is taken. Chance depends on (seed, epoch, index) alone.

    Args:
        documents: The documents.
        collator: Pads those that are shorter than others.
        max_seq_len: Tokens per example, at most.
        prefix: Special tokens before each.
        suffix: Special tokens after each.
        truncation_side: Where a longer document is cut off.
        min_seq_len: The shortest length for ``truncate``.
        seed: Decides all chance.
        shift: Begin a longer document at a place drawn by chance, anew in each epoch.
        truncate: Shorten documents to a length drawn by chance, between ``min_seq_len`` and ``max_seq_len``.
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
        """``input_ids`` and ``attention_mask`` (b, n) int64, and ``labels``: (b,) or (b, n) int64, or (b, numbers)."""
        beyond = indices >= len(self)  # what evens out the ranks in evaluation
        indices = np.where(beyond, 0, indices)
        tokens, _, labels, by_token = self.documents
        starts, lengths = self._pieces(epoch, indices)
        places, _ = windows(starts, lengths)
        input_ids = enclosed(tokens[places], lengths, self.prefix, self.suffix)
        inside = np.arange(input_ids.shape[1]) < (lengths + len(self.prefix) + len(self.suffix))[:, None]
        if by_token:
            around = (np.full(len(special), IGNORED) for special in (self.prefix, self.suffix))
            own = enclosed(labels[places], lengths, *around)
            own[beyond] = IGNORED
            return self.collator(input_ids, inside, own)
        own = labels[indices]
        own[beyond] = IGNORED if np.issubdtype(own.dtype, np.integer) else np.nan
        return {**self.collator(input_ids, inside), "labels": torch.from_numpy(own)}

    def _pieces(self, epoch: int, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the piece of each document that is used begins (b,), and how long it is (b,)."""
        starts, stops = self.documents.starts[indices], self.documents.starts[indices + 1]
        drawn = self.shift or self.truncate
        chances = [example_rng(self.seed, epoch, index) for index in indices.tolist()] if drawn else []
        longest = np.full(len(indices), self.max_seq_len)
        if self.truncate:
            longest = np.array([truncated_length(self.min_seq_len, self.max_seq_len, chance) for chance in chances])
        longest = np.maximum(1, longest - len(self.prefix) - len(self.suffix))
        spare = np.maximum(0, stops - starts - longest)
        if self.shift:
            pairs = zip(chances, spare.tolist(), strict=True)
            starts = starts + [int(chance.integers(most + 1)) if most else 0 for chance, most in pairs]
        elif self.truncation_side == "left":
            starts = starts + spare
        return starts, np.minimum(stops - starts, longest)


def enclosed(values: np.ndarray, lengths: np.ndarray, prefix: np.ndarray, suffix: np.ndarray) -> np.ndarray:
    """Rows with something before and after each.

    Args:
        values: (b, n) the rows.
        lengths: (b,) how long each is; after that, it does not matter what stands there.
        prefix: (p,) what comes before each.
        suffix: (s,) what comes after each.

    Returns:
        (b, p + n + s) int64.
    """
    size = len(values)
    room = np.zeros((size, len(suffix)), np.int64)
    wide = np.concatenate([np.tile(prefix, (size, 1)), values, room], axis=1, dtype=np.int64)
    after = len(prefix) + lengths[:, None] + np.arange(len(suffix))
    np.put_along_axis(wide, after, suffix[None], axis=1)
    return wide
