"""From a stream of tokens to examples and batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from perceiver_plugins.text.data.masking import Masker
from perceiver_plugins.text.data.prepared import TokenStream
from perceiver_plugins.training.loading import IGNORED, Key, example_rng

Example = tuple[np.ndarray, np.ndarray]
"""(input_ids, labels): (n,) int64 each."""


class MaskedChunks(Dataset[Example]):
    """A stream of tokens in chunks of equal length, masked.

    The last chunk is shorter; it is left out if it has fewer than ``min_seq_len`` tokens, unless it is the
    only one. Chance depends on (seed, epoch, index) alone.

    Args:
        stream: The tokens.
        masker: Chooses what is to be predicted.
        max_seq_len: Tokens per chunk.
        min_seq_len: Fewest tokens of the last chunk, and of a truncated one.
        seed: Decides all chance.
        static: The same masks in each epoch.
        shift: In each epoch, each chunk begins up to a whole chunk later, at a place drawn by chance.
        truncate: Shorten chunks to a length drawn by chance, between ``min_seq_len`` and ``max_seq_len``.
    """

    def __init__(
        self,
        stream: TokenStream,
        masker: Masker,
        max_seq_len: int,
        min_seq_len: int = 1,
        seed: int = 0,
        static: bool = False,
        shift: bool = False,
        truncate: bool = False,
    ) -> None:
        self.stream = stream
        self.masker = masker
        self.max_seq_len = max_seq_len
        self.min_seq_len = min_seq_len
        self.seed = seed
        self.static = static
        self.shift = shift
        self.truncate = truncate
        whole, rest = divmod(len(stream), max_seq_len)
        self._length = whole + (1 if rest and (rest >= min_seq_len or not whole) else 0)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, key: Key | int) -> Example:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if index >= len(self):  # what evens out the ranks in evaluation
            return self.stream.slice(0, 1)[0], np.full(1, IGNORED)
        # The masks' own generator, so that static masks stay the same where the text shifts by chance.
        start, length = index * self.max_seq_len, self.max_seq_len
        rng = example_rng(self.seed, epoch, index)
        if self.shift:
            latest = max(start, len(self.stream) - self.max_seq_len)
            start = min(start + int(rng.integers(self.max_seq_len)), latest)
        if self.truncate:
            length = truncated_length(self.min_seq_len, self.max_seq_len, rng)
        input_ids, word_parts = self.stream.slice(start, start + length)
        return self.masker(input_ids, word_parts, example_rng(self.seed, -1, index) if self.static else rng)


def truncated_length(shortest: int, longest: int, rng: np.random.Generator) -> int:
    """A length drawn by chance, both ends included."""
    return int(rng.integers(min(shortest, longest), longest + 1))


def pad(rows: Sequence[np.ndarray], value: int, side: Literal["left", "right"]) -> Tensor:
    """Rows of tokens (n,) as one tensor (b, n) int64, filled with ``value`` on one side of shorter ones."""
    padded = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[slice(len(row)) if side == "right" else slice(len(padded[0]) - len(row), None)] = row
    return torch.from_numpy(padded)


class Collator:
    """Joins examples into a batch, padded to the longest of them.

    Args:
        pad_token_id: Fills the input where an example is shorter.
        padding_side: Where it is filled.
    """

    def __init__(self, pad_token_id: int, padding_side: Literal["left", "right"] = "right") -> None:
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Returns ``input_ids``, ``attention_mask`` (1: token, 0: padding) and ``labels``: (b, n) int64."""
        batch = self.inputs([input_ids for input_ids, _ in examples])
        batch["labels"] = self.labels([labels for _, labels in examples])
        return batch

    def inputs(self, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` of rows of tokens: (b, n) int64."""
        return {
            "input_ids": pad(rows, self.pad_token_id, self.padding_side),
            "attention_mask": pad([np.ones(len(row)) for row in rows], 0, self.padding_side),
        }

    def labels(self, rows: Sequence[np.ndarray]) -> Tensor:
        """One label a token, (b, n) int64: ``IGNORED`` at padding."""
        return pad(rows, IGNORED, self.padding_side)
