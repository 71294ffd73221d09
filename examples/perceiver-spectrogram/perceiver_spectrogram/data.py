"""The data module: recordings of spoken digits, or of any other words."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import torch
from perceiver_core import Batch
from perceiver_plugins.sdk.data import IGNORED, PerceiverDataModule, example_rng
from perceiver_registry import UserError
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from perceiver_spectrogram.clips import decode, read_all, to_batch

TEST_TAKES, VALIDATION_TAKES = range(10), range(10, 13)
"""The takes that are held back. All others are for training."""

Example = tuple[Tensor, int]
"""A clip (t), and the number of its word."""


class SpokenDigitsDataModule(PerceiverDataModule):
    """Recordings in .wav files whose names are WORD_SPEAKER_TAKE.wav, like 7_jackson_32.wav.

    Takes 0 to 9 are for test, 10 to 12 for validation, the others for training.

    Args:
        path: the folder or zip archive with the files.
        sample_rate: samples in a second, which must be that of the files.
        max_delay_ms: milliseconds of silence before a clip in training, at most.
        batch_size: examples per batch and device, in training.
        valid_batch_size: the same in validation and test; null: as in training.
        num_workers: processes that load data; null: as the device needs.
        seed: seed of order and chance; null: that of the run.
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
        self.path = Path(path).expanduser()
        self.sample_rate = sample_rate
        self.max_delay = sample_rate * max_delay_ms // 1000

    @cached_property
    def clips(self) -> dict[str, list[tuple[Tensor, str]]]:
        """The samples and words of each split, which are read when they are first asked for."""
        clips: dict[str, list[tuple[Tensor, str]]] = {"train": [], "validation": [], "test": []}
        for name, content in read_all(self.path):
            parts = re.fullmatch(r"([^_]+)_.+_(\d+)", Path(name).stem)
            if parts is None:
                raise UserError(f"{name}: expected is a name like 7_jackson_32.wav")
            word, take = parts[1], int(parts[2])
            split = "test" if take in TEST_TAKES else "train"
            split = "validation" if take in VALIDATION_TAKES else split
            clips[split].append((decode(content, name, self.sample_rate), word))
        if not any(clips.values()):
            raise UserError(f"path: there are no .wav files in {self.path}")
        return clips

    # The model takes these over, before setup() is called (links in plugin.py).

    @property
    def label_names(self) -> list[str]:
        return sorted({word for clips in self.clips.values() for _, word in clips})

    @property
    def num_classes(self) -> int:
        return len(self.label_names)

    def setup(self, stage: str | None = None) -> None:
        numbers = {word: number for number, word in enumerate(self.label_names)}
        for split, clips in self.clips.items():
            examples = [(samples, numbers[word]) for samples, word in clips]
            self.split_datasets[split] = Examples(examples, self.delay)

    def delay(self, samples: Tensor, epoch: int, index: int) -> Tensor:
        """A clip that begins a little later; how much depends on seed, epoch and index alone."""
        silence = example_rng(self.seed, epoch, index).integers(self.max_delay + 1)
        return pad(samples, (int(silence), 0))

    @property
    def collate_fn(self) -> Callable[[list[Example]], Batch]:
        return collate


class Examples(Dataset[Example]):
    """The examples of a split. Training asks for (epoch, index), evaluation for an index.

    Args:
        examples: the clips as they are.
        change: what becomes of a clip in training.
    """

    def __init__(self, examples: list[Example], change: Callable[[Tensor, int, int], Tensor]):
        self.examples = examples
        self.change = change

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int] | int) -> Example:
        if isinstance(key, tuple):
            samples, label = self.examples[key[1]]
            return self.change(samples, *key), label
        if key >= len(self):  # it fills up the last batch of one of several processes
            return self.examples[-1][0], IGNORED
        return self.examples[key]


def collate(examples: list[Example]) -> Batch:
    """A batch of examples, as the adapter reads it, with ``labels`` (b)."""
    clips, labels = zip(*examples, strict=True)
    return {**to_batch(clips), "labels": torch.tensor(labels)}
