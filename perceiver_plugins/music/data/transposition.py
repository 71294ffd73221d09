"""Augmentation of music by transposition."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.music.notes import NUM_PITCHES
from perceiver_plugins.music.tokenizer import MusicTokenizer
from perceiver_plugins.sdk.data.causal import TokenSequence, TrainingWindows
from perceiver_plugins.sdk.data.loading import example_rng


class TransposedWindows(TrainingWindows):
    """Dataset of training windows, each transposed by a random number of semitones in each epoch.

    All notes of a window are shifted alike, by at most ``max_semitones`` and so that they remain within the range of
    MIDI pitches. Percussion is not shifted. The shift depends on (seed, epoch, index) alone.

    Args:
        sequence: the tokens.
        max_seq_len: inputs per example.
        num_targets: labels per example.
        seed: seed of offsets and shifts.
        tokenizer: tokenizer of the pieces.
        max_semitones: largest shift in semitones, up or down.
    """

    def __init__(
        self,
        sequence: TokenSequence,
        max_seq_len: int,
        num_targets: int,
        seed: int,
        tokenizer: MusicTokenizer,
        max_semitones: int,
    ) -> None:
        super().__init__(sequence, max_seq_len, num_targets, seed)
        self.tokenizer = tokenizer
        self.max_semitones = max_semitones

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Tensor]:
        """Return ``input_ids`` (b, m) and ``labels`` (b, n), int64: the tokens that follow the last n inputs."""
        batch = super().batch(epoch, indices)
        inputs, labels = batch["input_ids"].numpy(), batch["labels"].numpy()
        windows = np.concatenate([inputs, labels], axis=1)
        rows = zip(windows, indices.tolist(), strict=True)
        shifts = np.array([self._draw_shift(tokens, epoch, index) for tokens, index in rows])
        shifted = self.tokenizer.transpose(windows, shifts[:, None])
        parts = np.split(shifted, [inputs.shape[1]], axis=1)
        return dict(zip(("input_ids", "labels"), map(torch.from_numpy, parts), strict=True))

    def _draw_shift(self, tokens: np.ndarray, epoch: int, index: int) -> int:
        low, high = self.tokenizer.pitch_range(tokens)
        if low > high:
            return 0
        first, last = max(-self.max_semitones, -low), min(self.max_semitones, NUM_PITCHES - 1 - high)
        # Index 0 is that of the offset of the windows.
        return int(example_rng(self.seed, epoch, 1 + index).integers(first, last + 1))
