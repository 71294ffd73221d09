"""The data module that all data modules of clips share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from perceiver_plugins.multimodal.data.format import STREAMS, Clip, ClipFormat, to_batch
from perceiver_plugins.sdk.data.datasets import ExampleDataset
from perceiver_plugins.sdk.data.module import Classes, PerceiverDataModule, check_positive
from perceiver_registry.errors import UserError


class LabelledClips(ABC):
    """The clips of a split.

    Args:
        labels: (n,) int64, the classes that they belong to.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int, place: float) -> Clip:
        """A clip.

        Args:
            index: its number.
            place: which part of a longer recording, from 0 (the first) to 1 (the last).

        Raises:
            DataError: If it cannot be read.
        """


@dataclass(frozen=True)
class ClipSplits:
    """A data set.

    Args:
        label_names: what the classes are called, in the order of their labels.
        clips: those of "train" and, as far as there are any, "validation" and "test".
    """

    label_names: list[str]
    clips: dict[str, LabelledClips]


class ClipExamples(ExampleDataset):
    """The examples of a split: in training parts of recordings at random places, otherwise those in the middle.

    Args:
        clips: the clips.
        seed: Seed of the run.
    """

    def __init__(self, clips: LabelledClips, seed: int) -> None:
        super().__init__(seed)
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Read a clip.

        Raises:
            DataError: If it cannot be read.
        """
        clip = self.clips.read(index, 0.5 if rng is None else rng.random())
        entries = {name: values[0] for name, values in to_batch([clip]).items()}
        return entries | {"labels": self.clips.labels[index]}


class ClipDataModule(Classes, PerceiverDataModule):
    """Video clips with audio and a label each.

    Batches are dicts of ``pixel_values_videos`` (b, frames, 3, height, width), float32 from 0 to 1, ``input_values``
    (b, samples), float32 from -1 to 1, and ``labels`` (b,), int64. Where clips are silent, or audio alone, the other
    entry is missing.

    Subclasses say where clips come from: :meth:`load`.

    Args:
        num_frames: Frames of a clip.
        frame_size: Height and width of a frame, or one number for both.
        frame_rate: Frames a second.
        samples_per_frame: Samples of audio for each frame: 1920 of them 25 times a second are 48 kHz.
        batch_size: Examples per batch and device, in training.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there are no clips for training",
        "validation": "there are too few clips to set some aside for validation",
        "test": "there is no test data",
    }
    """What to say where there is nothing in a split."""

    def __init__(
        self,
        num_frames: int = 16,
        frame_size: int | tuple[int, int] = 64,
        frame_rate: int = 25,
        samples_per_frame: int = 1920,
        batch_size: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        check_positive(num_frames=num_frames, frame_rate=frame_rate, samples_per_frame=samples_per_frame)
        height, width = (frame_size, frame_size) if isinstance(frame_size, int) else frame_size
        if min(height, width) < 1:
            raise UserError(f"frame_size={frame_size} must be a height and a width of at least 1, or one number")
        self._shape = (num_frames, (height, width), frame_rate, samples_per_frame)

    # what subclasses say

    @abstractmethod
    def load(self) -> ClipSplits:
        """The clips of all splits and the names of their classes.

        Raises:
            DataError: If they cannot be found, or are not what they should be.
        """

    # what models and tasks ask

    @property
    def streams(self) -> tuple[str, ...]:
        """Which of :data:`~perceiver_plugins.multimodal.data.format.STREAMS` clips consist of."""
        return STREAMS

    @property
    def clip_format(self) -> ClipFormat:
        """Format of the clips that the model reads."""
        return ClipFormat(*self._shape, self.streams)

    @cached_property
    def splits(self) -> ClipSplits:
        """The data set, loaded at the first use."""
        return self.load()

    @property
    def num_frames(self) -> int:
        """Frames of a clip."""
        return self._shape[0]

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self._shape[1]

    @property
    def num_audio_samples(self) -> int:
        """Samples of audio of a clip."""
        return self._shape[0] * self._shape[3]

    @property
    def label_names(self) -> list[str]:
        """What the classes are called."""
        return self.splits.label_names

    @property
    def train_labels(self) -> Tensor:
        """The classes of the training data."""
        return self.splits.clips["train"].labels

    def description(self) -> dict[str, Any]:
        """What prediction needs to know about the data, as plain data: it goes into checkpoints."""
        return self.clip_format.description()

    # loading

    def setup(self, stage: str | None = None) -> None:
        """Makes the data sets of all splits."""
        self.split_datasets = {split: ClipExamples(clips, self.seed) for split, clips in self.splits.clips.items()}
