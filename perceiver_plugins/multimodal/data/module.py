"""Base class of the data modules for clips."""

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
    """Labelled clips of a split.

    Args:
        labels: (n,) int64, class indices.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int, offset: float) -> Clip:
        """Read a clip.

        Args:
            index: index of the recording.
            offset: part of a longer recording to read, from 0 (the beginning) to 1 (the end).

        Raises:
            DataError: if it cannot be read.
        """


@dataclass(frozen=True)
class ClipSplits:
    """Data set of clips.

    Args:
        label_names: names of the classes, by class index.
        clips: clips of the splits "train" and, if available, "validation" and "test".
    """

    label_names: list[str]
    clips: dict[str, LabelledClips]


class ClipExamples(ExampleDataset):
    """Examples of a split: in training a random part of each recording, otherwise its middle.

    Args:
        clips: the clips.
        seed: seed of the run.
    """

    def __init__(self, clips: LabelledClips, seed: int) -> None:
        super().__init__(seed)
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Read a clip.

        Raises:
            DataError: if it cannot be read.
        """
        clip = self.clips.read(index, 0.5 if rng is None else rng.random())
        entries = {name: values[0] for name, values in to_batch([clip]).items()}
        return entries | {"labels": self.clips.labels[index]}


class ClipDataModule(Classes, PerceiverDataModule):
    """Base class of data modules for video clips with audio and labels.

    Batches are dicts of ``pixel_values_videos`` (b, frames, 3, height, width), float32 from 0 to 1, ``input_values``
    (b, samples), float32 from -1 to 1, and ``labels`` (b,), int64. The entry of a stream that the clips do not have is
    missing.

    Subclasses implement :meth:`load`.

    Args:
        num_frames: Frames per clip.
        frame_size: Height and width of a frame, or one number for both.
        frame_rate: Frames per second.
        samples_per_frame: Audio samples per frame; 1920 at 25 frames per second are 48 kHz.
        batch_size: Examples per batch and device, in training.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "no training clips",
        "validation": "too few clips to split off validation data",
        "test": "no test data",
    }
    """Messages for empty splits."""

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

    # Implemented by subclasses

    @abstractmethod
    def load(self) -> ClipSplits:
        """Load the clips of all splits and the names of their classes.

        Raises:
            DataError: if they are missing or invalid.
        """

    # Read by models and tasks

    @property
    def streams(self) -> tuple[str, ...]:
        """Streams of a clip, of :data:`~perceiver_plugins.multimodal.data.format.STREAMS`."""
        return STREAMS

    @property
    def clip_format(self) -> ClipFormat:
        """Format of the clips."""
        return ClipFormat(*self._shape, self.streams)

    @cached_property
    def splits(self) -> ClipSplits:
        """Data set, loaded on first access."""
        return self.load()

    @property
    def num_frames(self) -> int:
        """Frames per clip."""
        return self._shape[0]

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a frame."""
        return self._shape[1]

    @property
    def num_audio_samples(self) -> int:
        """Audio samples per clip."""
        return self._shape[0] * self._shape[3]

    @property
    def sample_rate(self) -> int:
        """Audio samples per second."""
        return self._shape[2] * self._shape[3]

    @property
    def max_seconds(self) -> float:
        """Duration of a clip in seconds."""
        return self._shape[0] / self._shape[2]

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, by class index."""
        return self.splits.label_names

    @property
    def train_labels(self) -> Tensor:
        """Class indices of the training clips."""
        return self.splits.clips["train"].labels

    def description(self) -> dict[str, Any]:
        """Return the data's properties that prediction needs, as plain data for checkpoints."""
        return self.clip_format.description()

    # Loading

    def setup(self, stage: str | None = None) -> None:
        """Create the data sets of all splits."""
        self.split_datasets = {split: ClipExamples(clips, self.seed) for split, clips in self.splits.clips.items()}
