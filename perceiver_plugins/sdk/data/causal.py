"""Windows of long token sequences for causal models: training examples, and evaluation that scores each token once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from perceiver_core.perceiver_ar import grid
from perceiver_plugins.sdk.data.loading import IGNORED, BatchDataset, EvaluationSampler, example_rng
from perceiver_plugins.sdk.data.module import PerceiverDataModule


@dataclass(frozen=True)
class WindowRule:
    """Rule of what a causal Perceiver (Perceiver AR, arXiv 2202.07765) reads before it predicts a token.

    After t tokens, it reads the tokens from ``start(t, max_seq_len)`` on, and has latents at those from
    ``start(t, num_latents)`` on. Both are functions of t alone, so that generation, with or without a cache, and
    scoring give the same distribution. Between ``num_latents - stride + 1`` and ``num_latents`` latents are used.

    Args:
        max_seq_len: largest number of tokens that the model reads.
        num_latents: largest number of latents, at most ``max_seq_len``.
        stride: number of tokens by which the window and the latents move, at most ``num_latents``.

    Raises:
        ValueError: unless 1 <= ``stride`` <= ``num_latents`` <= ``max_seq_len``.
    """

    max_seq_len: int
    num_latents: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.num_latents <= self.max_seq_len:
            raise ValueError(f"{self}: must be 1 <= stride <= num_latents <= max_seq_len")

    @classmethod
    def without_prefix(cls, max_seq_len: int) -> WindowRule:
        """Create the rule of a model with a latent for each token that it reads."""
        return cls(max_seq_len, max_seq_len, (max_seq_len + 1) // 2)

    def start(self, num_tokens: np.ndarray, size: int) -> np.ndarray:
        """Return the first of at most ``size`` tokens (:func:`~perceiver_core.perceiver_ar.grid`).

        Args:
            num_tokens: numbers of tokens, int64 of any shape.
            size: ``max_seq_len`` or ``num_latents``.
        """
        return grid(torch.as_tensor(num_tokens), size, self.stride).numpy()

    def blocks(self, num_tokens: int) -> Blocks:
        """Split the predictions in a sequence into blocks that one forward pass makes.

        Args:
            num_tokens: length of the sequence. Each token but the first is predicted, from the tokens before it.
        """
        end = max(0, num_tokens - 1)
        # The last prediction before the window moves, or the latents move, ends a block.
        moves = [np.arange(size, end, self.stride) for size in (self.num_latents, self.max_seq_len)]
        lasts = np.unique(np.concatenate([*moves, np.array([end] if end else [], np.int64)]))
        return Blocks(
            self.start(lasts, self.max_seq_len),
            self.start(lasts, self.num_latents),
            np.concatenate([[1], lasts[:-1] + 1])[: len(lasts)],
            lasts,
        )


class Blocks(NamedTuple):
    """Predictions of a sequence, by forward passes. Each array is (blocks,) int64.

    Attributes:
        windows: first token that is read.
        latents: first token with a latent.
        firsts: first token that is predicted.
        lasts: last token that is predicted; the one before is the last that is read.
    """

    windows: np.ndarray
    latents: np.ndarray
    firsts: np.ndarray
    lasts: np.ndarray


@dataclass(frozen=True)
class TokenSequence:
    """Tokens of a split: its documents, one after another. The arrays may be memory-mapped files.

    Attributes:
        input_ids: (tokens,) tokens.
        num_units: (tokens,) number of units of each token, such as bytes of text; 0 for the tokens that begin and end
            documents.
        begin_id: the token that begins documents, which is given and never predicted. None: all tokens are predicted.
    """

    input_ids: np.ndarray
    num_units: np.ndarray
    begin_id: int | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def example(self, indices: np.ndarray, num_labels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return inputs, labels and units of windows.

        Args:
            indices: (b, m + 1) indices of consecutive tokens.
            num_labels: number n of labels.

        Returns:
            Inputs (b, m); the tokens that follow the last n of them, ``IGNORED`` if they begin a document (b, n); and
            the units of these tokens (b, n). All are int64.
        """
        ids = self.input_ids[indices].astype(np.int64)
        labels, units = ids[:, -num_labels:], self.num_units[indices[:, -num_labels:]].astype(np.int64)
        return ids[:, :-1], np.where((labels == self.begin_id) & (units == 0), IGNORED, labels), units


class TrainingWindows(BatchDataset):
    """Dataset of windows of consecutive tokens, for training.

    A window has ``max_seq_len`` inputs, and labels for the last ``num_targets`` of them, which have the longest
    context. Windows start ``num_targets`` tokens apart, at a random offset in each epoch, so that an epoch has each
    label once: at most ``num_targets - 1`` tokens are left out, others in each epoch. The sequence is read as a ring:
    its end is followed by its begin, as a document is followed by another.

    The offset depends on (seed, epoch) alone.

    Args:
        sequence: the tokens.
        max_seq_len: inputs per example. A shorter sequence is a single window.
        num_targets: labels per example.
        seed: seed of the offsets.
    """

    def __init__(self, sequence: TokenSequence, max_seq_len: int, num_targets: int, seed: int = 0) -> None:
        self.sequence = sequence
        self.seed = seed
        self.num_inputs = min(max_seq_len, len(sequence) - 1)
        self.num_targets = min(num_targets, self.num_inputs)

    def __len__(self) -> int:
        return len(self.sequence) // self.num_targets if self.num_inputs > 0 else 0

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Return ``input_ids`` (b, m) and ``labels`` (b, n), int64: the tokens that follow the last n inputs."""
        size = len(self.sequence)
        offset = int(example_rng(self.seed, epoch, 0).integers(size))
        starts = offset + np.minimum(indices, len(self) - 1) * self.num_targets
        inputs, labels, _ = self.sequence.example(
            (starts[:, None] + np.arange(self.num_inputs + 1)) % size, self.num_targets
        )
        labels[indices >= len(self)] = IGNORED
        return {"input_ids": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)}


class ScoringWindows(BatchDataset):
    """Dataset of batches that score each token of a sequence once, as in generation.

    The first token of the sequence and tokens that begin a document are given, not scored. An index of the dataset is
    that of a whole batch of windows with equal numbers of inputs and latents, so that there is no padding.

    Args:
        sequence: the tokens.
        rule: rule of the model.
        batch_size: largest number of windows per batch.
    """

    def __init__(self, sequence: TokenSequence, rule: WindowRule, batch_size: int) -> None:
        self.sequence = sequence
        self.blocks = rule.blocks(len(sequence))
        self.batches = list(self._grouped(batch_size))

    def _grouped(self, batch_size: int) -> Iterator[np.ndarray]:
        """Yield the indices of the blocks of each batch."""
        shapes = np.stack([self.blocks.lasts - self.blocks.windows, self.blocks.lasts - self.blocks.latents])
        _, kinds, counts = np.unique(shapes, axis=1, return_inverse=True, return_counts=True)
        order = np.argsort(kinds.reshape(-1), kind="stable")
        for group in np.split(order, np.cumsum(counts)[:-1]) if len(order) else ():
            yield from np.split(group, range(batch_size, len(group), batch_size))

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, torch.Tensor]:
        """Make the batch of a single index.

        Returns:
            ``input_ids`` (b, m); ``labels`` (b, n), the tokens that follow the last n inputs, which have a latent
            (-100 at those that another window scores); ``num_units`` (b,), the units of the scored tokens. All are
            int64.
        """
        (index,) = indices
        beyond = index >= len(self)
        chosen = self.batches[0 if beyond else index]
        windows, latents, firsts, lasts = (values[chosen] for values in self.blocks)
        num_inputs, num_labels = int(lasts[0] - windows[0]), int(lasts[0] - latents[0])
        token_indices = windows[:, None] + np.arange(num_inputs + 1)
        inputs, labels, units = self.sequence.example(token_indices, num_labels)
        labels[(token_indices[:, -num_labels:] < firsts[:, None]) | beyond] = IGNORED
        units[labels == IGNORED] = 0
        entries = {"input_ids": inputs, "labels": labels, "num_units": units.sum(axis=1)}
        return {name: torch.from_numpy(values) for name, values in entries.items()}


class CausalDataModule(PerceiverDataModule):
    """Base class of data modules whose examples are windows of long token sequences.

    Batches are dicts of

    - ``input_ids`` (b, m), int64: consecutive tokens, m at most the length that the model reads;
    - ``labels`` (b, n), int64: the tokens that follow the last n inputs, -100 where ignored;
    - ``num_units`` (b,), int64, in validation and test: units, such as bytes of text, of the labels.

    The first m - n inputs are the prefix, which has no latents. There is no padding.

    The lengths m and n follow from the model, which the task passes to :meth:`fit_windows` before the loaders are
    created. Without it, each input has a label.

    Subclasses set :attr:`max_seq_len` and create the datasets in ``setup`` by :meth:`windows`.
    """

    max_seq_len: int
    """Largest number of inputs in training."""

    rule: WindowRule | None = None
    """Rule of the model. None: no model yet."""

    num_targets: int | None = None
    """Labels per example in training. None: no model yet."""

    @property
    def num_train_tokens(self) -> int | None:
        """Number of training tokens, which ``setup`` loads if necessary; None: unknown, as with streaming."""
        return None if self.num_train_examples is None else len(self.split_datasets["train"].sequence)

    def fit_windows(self, rule: WindowRule, num_targets: int) -> None:
        """Fit the windows to a model.

        Args:
            rule: the model's rule, for validation and test.
            num_targets: tokens that the model predicts in a training step.
        """
        if (self.rule, self.num_targets) == (rule, num_targets):
            return
        self.rule, self.num_targets = rule, num_targets
        for split, dataset in self.split_datasets.items():
            self.split_datasets[split] = self.windows(dataset.sequence, train=split == "train")

    def windows(self, sequence: TokenSequence, train: bool) -> TrainingWindows | ScoringWindows:
        """Create the dataset of a split."""
        if train:
            return TrainingWindows(sequence, self.max_seq_len, self.num_targets or self.max_seq_len, self.seed)
        rule = self.rule or WindowRule.without_prefix(self.max_seq_len)
        return ScoringWindows(sequence, rule, self.valid_batch_size)

    def _evaluation_loader(self, split: str) -> DataLoader:
        dataset = self.examples(split)
        sampler = EvaluationSampler(len(dataset), self.num_replicas, self.rank)
        return self._loader(dataset, sampler, batch_size=1)  # a batch of the dataset
