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
from torch.utils.data import Dataset

from perceiver_plugins.text.data.chunks import Collator, Example, truncated_length
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.labels import Labels
from perceiver_plugins.text.data.prepared import (
    TokenStream,
    encode,
    make_folder,
    quiet_datasets,
    split_files,
    write_documents,
)
from perceiver_plugins.text.data.streaming import fingerprint
from perceiver_plugins.training.errors import DataError
from perceiver_plugins.training.files import Row
from perceiver_plugins.training.loading import IGNORED, Key, example_rng

FACTS = "labels.json"
"""The file in a prepared folder with what models need to know of the labels."""


def prepare_labelled(
    folder: Path,
    load: Callable[[], Mapping[str, Iterable[Row]]],
    labels: Labels,
    encoder: DocumentEncoder,
    val_fraction: float,
    workers: int | None = None,
    batch_size: int = 1000,
) -> None:
    """Make the folder with the tokenised and labelled splits, if it is not there yet.

    Rows without a text are left out, and documents that the tokenizer makes no token of.

    Args:
        folder: Where the data will be.
        load: Yields the rows of each split, those for training first.
        labels: Reads them.
        encoder: Makes tokens of texts.
        val_fraction: Part of the training data that is set aside where there is no split to validate on.
        workers: Processes for tokenising; None: one for a small text, up to eight cores for a large one.
        batch_size: Documents per step of tokenising.

    Raises:
        DataError: If something is wrong with the rows.
    """
    schema = pa.schema({"text": pa.large_string(), "labels": labels.stored})

    def make(work: Path, result: Path) -> None:
        documents = {}
        with quiet_datasets():
            for split, rows in load().items():
                documents[split] = write_documents(work / f"{split}.arrow", _documents(rows, labels, split), schema)
                if split == "train":
                    labels.learn()
        if "validation" not in documents:
            documents["train"], documents["validation"] = set_aside(documents["train"], val_fraction)
        features = {"input_ids": datasets.Sequence(datasets.Value(np.dtype(encoder.dtype).name))}
        features["labels"] = labels.feature
        for split, part in documents.items():
            if len(part):
                label = LabelledEncoder(encoder, labels)
                encode(part, label, features, result / f"{split}.arrow", workers, batch_size)
        facts = labels.facts(open_documents(result, "train").all_labels())
        (result / FACTS).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")

    make_folder(folder, make)


def _documents(rows: Iterable[Row], labels: Labels, split: str) -> Iterator[tuple[str, Any]]:
    empty = True
    for place, row in rows:
        text, value = labels.read(row, place)
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
    held_out = stratified(order, classes, fraction)
    return documents.select(np.flatnonzero(~held_out)), documents.select(np.flatnonzero(held_out))


def stratified(order: np.ndarray, classes: np.ndarray, fraction: float) -> np.ndarray:
    """The first ones of each class, in the given order; each class keeps at least one.

    Args:
        order: (n,) what decides; equal values stay on one side.
        classes: (n,) numbers from 0.
        fraction: Part of each class, rounded; if that is nothing for all, one of the largest class.

    Returns:
        (n,) bool.
    """
    sizes = np.bincount(classes)
    counts = np.minimum(np.rint(sizes * fraction).astype(np.int64), sizes - 1)
    if not counts.any():
        counts[sizes.argmax()] = min(1, sizes.max() - 1)
    # The first of each class that is not among them: all before it are.
    ranked = order[np.lexsort((order, classes))]
    limits = ranked[np.cumsum(sizes) - sizes + counts]
    return order < limits[classes]


class Documents(NamedTuple):
    """The documents of a split.

    Args:
        tokens: Their tokens in a row; with their labels, if each token has one.
        starts: (documents + 1,) where each begins, and where the last one ends.
        labels: (documents,) or (documents, numbers): what is to be predicted; None: see ``tokens``.
    """

    tokens: TokenStream
    starts: np.ndarray
    labels: np.ndarray | None

    def all_labels(self) -> np.ndarray:
        """The labels of all documents, or of all tokens if each has one."""
        return self.tokens.slice(0, len(self.tokens))[1] if self.labels is None else self.labels


def open_documents(folder: Path, split: str) -> Documents:
    """Map the documents of a split in a prepared folder; none if there is no such split."""
    files = split_files(folder, split)
    loaded = [datasets.Dataset.from_file(str(file)) for file in files]
    chunks = [chunk for part in loaded for chunk in part.data.column("input_ids").chunks]
    lengths = [np.zeros(1, np.int64), *(chunk.value_lengths().to_numpy() for chunk in chunks)]
    starts = np.cumsum(np.concatenate(lengths), dtype=np.int64)
    label_chunks = [chunk for part in loaded for chunk in part.data.column("labels").chunks]
    if label_chunks and pa.types.is_integer(label_chunks[0].type):
        labels = np.concatenate([chunk.to_numpy() for chunk in label_chunks])
    elif label_chunks and pa.types.is_floating(label_chunks[0].type.value_type):
        labels = np.concatenate([chunk.flatten().to_numpy() for chunk in label_chunks]).reshape(len(starts) - 1, -1)
    else:
        return Documents(TokenStream.open(files, "input_ids", "labels"), starts, None)
    return Documents(TokenStream.open(files, "input_ids"), starts, labels)


class LabelledDocuments(Dataset[Example]):
    """Documents of at most ``max_seq_len`` tokens, special ones around them included, with labels.

    Of a longer one, a piece is taken. Chance depends on (seed, epoch, index) alone.

    Args:
        documents: The documents.
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

    def __getitem__(self, key: Key | int) -> Example:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        tokens, _, labels = self.documents
        if index >= len(self):  # what evens out the ranks in evaluation
            ids, unknown = tokens.slice(0, 1)[0], np.full(1, IGNORED)
            return ids.astype(np.int64), unknown if labels is None else _nothing(labels[0])
        ids, *own_labels = tokens.slice(*self._window(epoch, index))
        input_ids = np.concatenate([self.prefix, ids, self.suffix])
        if labels is not None:
            return input_ids, labels[index]
        before, after = (np.full(len(special), IGNORED) for special in (self.prefix, self.suffix))
        return input_ids, np.concatenate([before, *own_labels, after])

    def _window(self, epoch: int, index: int) -> tuple[int, int]:
        """Where the piece of the document that is used begins and ends."""
        start, stop = self.documents.starts[index : index + 2].tolist()
        rng = example_rng(self.seed, epoch, index)
        length = truncated_length(self.min_seq_len, self.max_seq_len, rng) if self.truncate else self.max_seq_len
        most = max(1, length - len(self.prefix) - len(self.suffix))
        spare = stop - start - most
        if spare <= 0:
            return start, stop
        if self.shift:
            start += int(rng.integers(spare + 1))
        elif self.truncation_side == "left":
            start += spare
        return start, start + most


def _nothing(label: Any) -> Any:
    """A label of the same kind that says that nothing is to be predicted."""
    return np.full_like(label, np.nan if np.issubdtype(label.dtype, np.floating) else IGNORED)


class DocumentCollator(Collator):
    """Joins examples with one label, or some numbers, for each document into a batch."""

    def labels(self, rows: Sequence[np.ndarray]) -> Tensor:
        """The labels (b,) int64, or numbers (b, numbers) float32."""
        return torch.from_numpy(np.stack(rows))
