"""Data module for recordings of spoken digits, or of any other words."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from perceiver_plugins.sdk.data import ExampleDataset, NamedLabels, PerceiverDataModule, read_files
from perceiver_registry import UserError
from torch import Tensor
from torch.nn.functional import pad

from perceiver_spectrogram.clips import NOUN, SUFFIXES, collate, decode

TEST_TAKES, VALIDATION_TAKES = range(10), range(10, 13)
"""Held-out takes. All others are for training."""


class SpokenDigitsDataModule(NamedLabels, PerceiverDataModule):
    """Recordings in .wav files whose names are WORD_SPEAKER_TAKE.wav, like 7_jackson_32.wav.

    Takes 0 to 9 are for test, 10 to 12 for validation, the others for training.

    Args:
        path: the folder or zip archive with the files.
        sample_rate: samples per second of the files.
        max_delay_ms: maximum silence before a clip in training, in milliseconds.
        batch_size: examples per batch and device, in training.
        valid_batch_size: batch size in validation and test; null: batch_size.
        num_workers: number of data loading processes; null: depends on the device.
        seed: random seed; null: that of the run.
    """

    def __init__(
        self,
        path: str,
        sample_rate: int = 8000,
        max_delay_ms: int = 100,
        batch_size: int = 32,
        valid_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int | None = None,
    ):
        super().__init__(batch_size, valid_batch_size, num_workers, seed)
        self.path = path
        self.sample_rate = sample_rate
        self.max_delay = sample_rate * max_delay_ms // 1000

    collate_fn = collate

    @cached_property
    def clips(self) -> dict[str, list[tuple[Tensor, str]]]:
        """Samples and word of each clip, by split, read on first access."""
        clips: dict[str, list[tuple[Tensor, str]]] = {"train": [], "validation": [], "test": []}
        for name, content in read_files(self.path, SUFFIXES, NOUN):
            parts = re.fullmatch(r"([^_]+)_.+_(\d+)", Path(name).stem)
            if parts is None:
                raise UserError(f"{name}: must have a name like 7_jackson_32.wav")
            word, take = parts[1], int(parts[2])
            split = "test" if take in TEST_TAKES else "train"
            split = "validation" if take in VALIDATION_TAKES else split
            clips[split].append((decode(content, name, self.sample_rate), word))
        return clips

    @property
    def labels(self) -> dict[str, list[str]]:
        """Word of each clip, from which ``label_names`` and ``num_classes`` are derived."""
        return {split: [word for _, word in clips] for split, clips in self.clips.items()}

    def setup(self, stage: str | None = None) -> None:
        for split, clips in self.clips.items():
            samples = [samples for samples, _ in clips]
            labels = self.label_indices(split)
            self.split_datasets[split] = Clips(samples, labels, self.max_delay, self.seed)


class Clips(ExampleDataset):
    """Examples of a split.

    Args:
        clips: samples (t) of each clip.
        labels: (n,) index of the word of each clip.
        max_delay: maximum silence before a clip in training, in samples.
        seed: seed of the run.
    """

    def __init__(self, clips: list[Tensor], labels: Tensor, max_delay: int, seed: int):
        super().__init__(seed)
        self.clips = clips
        self.labels = labels
        self.max_delay = max_delay

    def __len__(self) -> int:
        return len(self.clips)

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        samples = self.clips[index]
        if rng is not None:  # training: random silence at the start
            samples = pad(samples, (int(rng.integers(self.max_delay + 1)), 0))
        return {"input_values": samples, "labels": self.labels[index]}
