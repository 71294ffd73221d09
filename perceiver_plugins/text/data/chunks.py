"""Masked examples and batches from a sequence of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.loading import IGNORED, BatchDataset, example_rng
from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.prepared import Tokens


class MaskedChunks(BatchDataset):
    """Dataset of masked chunks of equal length, which makes whole batches.

    The last chunk may be shorter; it is dropped if it has fewer than ``min_seq_len`` tokens, unless it is the only
    chunk. Random numbers depend only on (seed, epoch, index).

    Args:
        tokens: The tokens.
        masker: Chooses and masks the tokens to predict.
        collator: Pads the chunks of a batch.
        max_seq_len: Tokens per chunk.
        min_seq_len: Smallest number of tokens of the last chunk and of truncated chunks.
        seed: Seed of all random numbers.
        static: Use the same masks in all epochs.
        shift: Start each chunk up to ``max_seq_len - 1`` tokens later, at random in each epoch.
        truncate: Shorten each chunk to a random length between ``min_seq_len`` and ``max_seq_len``.
    """

    def __init__(
        self,
        tokens: Tokens,
        masker: Masker,
        collator: Collator,
        max_seq_len: int,
        min_seq_len: int = 1,
        seed: int = 0,
        static: bool = False,
        shift: bool = False,
        truncate: bool = False,
    ) -> None:
        self.tokens = tokens
        self.masker = masker
        self.collator = collator
        self.max_seq_len = max_seq_len
        self.min_seq_len = min_seq_len
        self.seed = seed
        self.static = static
        self.shift = shift
        self.truncate = truncate
        whole, rest = divmod(len(tokens.input_ids), max_seq_len)
        self._length = whole + (1 if rest and (rest >= min_seq_len or not whole) else 0)

    def __len__(self) -> int:
        return self._length

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Tensor]:
        """Return ``input_ids``, ``attention_mask`` and ``labels``, each (b, m) int64.

        Labels are ignored at indices beyond the end, which make the ranks' shares equal in evaluation.
        """
        beyond = indices >= len(self)
        indices = np.where(beyond, 0, indices)
        rngs = [example_rng(self.seed, epoch, index) for index in indices.tolist()]
        starts, end = indices * self.max_seq_len, len(self.tokens.input_ids)
        if self.shift:
            shifts = [int(rng.integers(self.max_seq_len)) for rng in rngs]
            starts = np.minimum(starts + shifts, np.maximum(starts, end - self.max_seq_len))
        lengths = np.minimum(end - starts, self.max_seq_len)
        if self.truncate:
            lengths = np.minimum(lengths, [draw_length(self.min_seq_len, self.max_seq_len, rng) for rng in rngs])
        if self.static:  # separate generators, so that masks do not depend on shifts and lengths
            rngs = [example_rng(self.seed, -1, index) for index in indices.tolist()]
        token_indices, inside = padded_indices(starts, lengths)
        input_ids, word_parts = (array[token_indices] for array in self.tokens)
        masked_ids, labels = self.masker(input_ids, word_parts, inside, rngs)
        labels[beyond] = IGNORED
        return self.collator(masked_ids, inside, labels)


def draw_length(shortest: int, longest: int, rng: np.random.Generator) -> int:
    """Draw a length uniformly, both ends included."""
    return int(rng.integers(min(shortest, longest), longest + 1))


def padded_indices(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index slices of different lengths of a long array, as rows padded on the right.

    Args:
        starts: (b,) start of each slice.
        lengths: (b,) length of each slice.

    Returns:
        Indices into the array (b, m), m the longest length, and a mask (b, m) that is True inside the slice. Indices
        outside repeat the start.
    """
    columns = np.arange(lengths.max())
    inside = columns < lengths[:, None]
    return starts[:, None] + columns * inside, inside


class Collator:
    """Collate function for rows of tokens.

    Args:
        pad_token_id: Token that pads the input.
        padding_side: Side on which rows are padded.
    """

    def __init__(self, pad_token_id: int, padding_side: Literal["left", "right"] = "right") -> None:
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side

    def __call__(
        self, input_ids: np.ndarray, inside: np.ndarray, labels: np.ndarray | None = None
    ) -> dict[str, Tensor]:
        """Make a batch of rows that are padded on the right.

        Args:
            input_ids: (b, m) tokens.
            inside: (b, m) bool, False after the end of a row. Values of the other arrays are ignored there.
            labels: (b, m) labels of the tokens; None: no labels.

        Returns:
            ``input_ids``, ``attention_mask`` (1: token, 0: padding) and, if given, ``labels`` (``IGNORED`` at padding),
            each (b, m) int64.
        """
        entries = [
            ("input_ids", input_ids, self.pad_token_id),
            ("attention_mask", np.ones_like(inside, dtype=np.int64), 0),
        ]
        if labels is not None:
            entries.append(("labels", labels, IGNORED))
        batch = {name: np.where(inside, values, fill) for name, values, fill in entries}
        if self.padding_side == "left" and not inside.all():
            size = inside.shape[1]
            rotated = (np.arange(size) + inside.sum(axis=1, keepdims=True)) % size
            batch = {name: np.take_along_axis(values, rotated, axis=1) for name, values in batch.items()}
        return {name: torch.from_numpy(values.astype(np.int64, copy=False)) for name, values in batch.items()}

    def inputs(self, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Return ``input_ids`` and ``attention_mask``, each (b, m) int64, of rows of tokens."""
        lengths = np.array([len(row) for row in rows])
        indices, inside = padded_indices(np.cumsum(lengths) - lengths, lengths)
        return self(np.concatenate([*rows, [0]])[indices], inside)
