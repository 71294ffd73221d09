"""From a row of tokens to examples and batches."""

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
    """A row of tokens in chunks of equal length, masked, a batch at a time.

    The last chunk is shorter; it is left out if it has fewer than ``min_seq_len`` tokens, unless it is the
    only one. Chance depends on (seed, epoch, index) alone.

    Args:
        tokens: The tokens.
        masker: Chooses what is to be predicted.
        collator: Pads chunks that are shorter than others.
        max_seq_len: Tokens per chunk.
        min_seq_len: Fewest tokens of the last chunk, and of a truncated one.
        seed: Decides all chance.
        static: The same masks in each epoch.
        shift: In each epoch, each chunk begins up to a whole chunk later, at a place drawn by chance.
        truncate: Shorten chunks to a length drawn by chance, between ``min_seq_len`` and ``max_seq_len``.
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
        """``input_ids``, ``attention_mask`` and ``labels``: (b, n) int64."""
        beyond = indices >= len(self)  # what evens out the ranks in evaluation
        indices = np.where(beyond, 0, indices)
        chances = [example_rng(self.seed, epoch, index) for index in indices.tolist()]
        starts, end = indices * self.max_seq_len, len(self.tokens.input_ids)
        if self.shift:
            shifts = [int(chance.integers(self.max_seq_len)) for chance in chances]
            starts = np.minimum(starts + shifts, np.maximum(starts, end - self.max_seq_len))
        lengths = np.minimum(end - starts, self.max_seq_len)
        if self.truncate:
            drawn = [truncated_length(self.min_seq_len, self.max_seq_len, chance) for chance in chances]
            lengths = np.minimum(lengths, drawn)
        if self.static:  # a generator of their own, so that masks stay the same where the text shifts by chance
            chances = [example_rng(self.seed, -1, index) for index in indices.tolist()]
        places, inside = windows(starts, lengths)
        input_ids, word_parts = (column[places] for column in self.tokens)
        shown, labels = self.masker(input_ids, word_parts, inside, chances)
        labels[beyond] = IGNORED
        return self.collator(shown, inside, labels)


def truncated_length(shortest: int, longest: int, rng: np.random.Generator) -> int:
    """A length drawn by chance, both ends included."""
    return int(rng.integers(min(shortest, longest), longest + 1))


def windows(starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where rows of different lengths lie in a long array.

    Args:
        starts: (b,) where each begins.
        lengths: (b,) how long each is.

    Returns:
        Places in the array (b, n), and which of them are in the row (b, n), all of them in the longest row. The others
        are at the end of a row, and repeat its first place.
    """
    columns = np.arange(lengths.max())
    inside = columns < lengths[:, None]
    return starts[:, None] + columns * inside, inside


class Collator:
    """Makes batches of rows of tokens, as a model takes them.

    Args:
        pad_token_id: Fills the input where a row is shorter than others.
        padding_side: Where it is filled.
    """

    def __init__(self, pad_token_id: int, padding_side: Literal["left", "right"] = "right") -> None:
        self.pad_token_id = pad_token_id
        self.padding_side = padding_side

    def __call__(
        self, input_ids: np.ndarray, inside: np.ndarray, labels: np.ndarray | None = None
    ) -> dict[str, Tensor]:
        """A batch.

        Args:
            input_ids: (b, n) the tokens, each row from its beginning on.
            inside: (b, n) bool, False after a row's end; what stands there in the others does not matter.
            labels: (b, n) one label a token, if there are any.

        Returns:
            ``input_ids``, ``attention_mask`` (1: token, 0: padding) and, if given, ``labels`` (``IGNORED`` at padding):
            (b, n) int64.
        """
        columns = [
            ("input_ids", input_ids, self.pad_token_id),
            ("attention_mask", np.ones_like(inside, dtype=np.int64), 0),
        ]
        if labels is not None:
            columns.append(("labels", labels, IGNORED))
        batch = {name: np.where(inside, values, fill) for name, values, fill in columns}
        if self.padding_side == "left" and not inside.all():
            size = inside.shape[1]
            turned = (np.arange(size) + inside.sum(axis=1, keepdims=True)) % size
            batch = {name: np.take_along_axis(values, turned, axis=1) for name, values in batch.items()}
        return {name: torch.from_numpy(values.astype(np.int64, copy=False)) for name, values in batch.items()}

    def inputs(self, rows: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask`` of rows of tokens (n,): (b, n) int64."""
        lengths = np.array([len(row) for row in rows])
        places, inside = windows(np.cumsum(lengths) - lengths, lengths)
        return self(np.concatenate([*rows, [0]])[places], inside)
