"""Base class of audio data modules: rate, length, augmentation, labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.audio.data.format import AudioFormat, Augmentation, collate
from perceiver_plugins.sdk.data.datasets import ExampleDataset
from perceiver_plugins.sdk.data.module import Classes, PerceiverDataModule, check_positive
from perceiver_registry.errors import UserError


class LabelledRecordings(ABC):
    """Labelled recordings of a split.

    Args:
        labels: (n,) int64, class indices.
    """

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def read(self, index: int, audio_format: AudioFormat, offset: float) -> np.ndarray:
        """Read a recording.

        Args:
            index: index of the recording.
            audio_format: format of the result.
            offset: part of a longer recording to read, from 0 (the beginning) to 1 (the end).

        Returns:
            (samples,) float32.

        Raises:
            DataError: if it cannot be read.
        """


@dataclass(frozen=True)
class AudioSplits:
    """Data set of recordings.

    Args:
        label_names: names of the classes, by class index.
        recordings: recordings of the splits "train" and, if available, "validation" and "test".
    """

    label_names: list[str]
    recordings: dict[str, LabelledRecordings]


class AudioExamples(ExampleDataset):
    """Examples of a split: in training a random part of each long recording, otherwise its middle.

    Args:
        recordings: the recordings.
        audio_format: format of the model's inputs.
        augmentation: random augmentation for training.
        seed: seed of the run.
    """

    def __init__(
        self,
        recordings: LabelledRecordings,
        audio_format: AudioFormat,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(seed)
        self.recordings = recordings
        self.audio_format = audio_format
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.recordings)

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Read a recording.

        Raises:
            DataError: if it cannot be read.
        """
        samples = self.recordings.read(index, self.audio_format, 0.5 if rng is None else rng.random())
        if rng is not None and self.augmentation is not None:
            samples = self.augmentation(samples, rng)
        return {"input_values": torch.from_numpy(samples), "labels": self.recordings.labels[index]}


class AudioDataModule(Classes, PerceiverDataModule):
    """Base class of data modules of labelled recordings.

    Batches are dicts of ``input_values`` (b, samples), float32, ``attention_mask`` (b, samples), int64, 0 at padding,
    and ``labels`` (b,), int64. Recordings are resampled and averaged over channels.

    Subclasses implement :meth:`load` and :meth:`default_format`.

    Args:
        sample_rate: Samples per second; null: that of most training recordings, at most 16,000.
        max_seconds: Longest duration of a recording in seconds; of a longer one, training reads a random part and
            evaluation the middle; null: the longest of the training recordings, at most 10 seconds.
        random_shift_ms: Largest shift of a training recording in milliseconds. Silence is added at its beginning, or
            a part of it removed, but not more than half of the recording.
        random_speed: Largest relative change of the speed of a training recording, and with it of its pitch.
        noise_snr: Lowest signal-to-noise ratio, in decibels, of white noise that is added to training recordings; the
            ratio is drawn from the 30 dB above it; null: no noise.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "no recordings for training",
        "validation": "no validation data (too few recordings to split some off)",
        "test": "no test data",
    }
    """Error messages of empty splits."""

    def __init__(
        self,
        sample_rate: int | None = None,
        max_seconds: float | None = None,
        random_shift_ms: int = 0,
        random_speed: float = 0.0,
        noise_snr: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive(sample_rate=sample_rate)
        if max_seconds is not None and max_seconds <= 0:
            raise UserError(f"max_seconds={max_seconds} must be more than 0")
        if random_shift_ms < 0:
            raise UserError(f"random_shift_ms={random_shift_ms} must be at least 0")
        if not 0 <= random_speed < 1:
            raise UserError(f"random_speed={random_speed} must be at least 0 and less than 1")
        self._sample_rate = sample_rate
        self._max_seconds = max_seconds
        self._random_shift_ms = random_shift_ms
        self._random_speed = random_speed
        self._noise_snr = noise_snr

    # Implemented by subclasses

    @abstractmethod
    def load(self) -> AudioSplits:
        """Load the recordings of all splits and the names of their classes.

        Raises:
            DataError: if they are missing or invalid.
        """

    @abstractmethod
    def default_format(self) -> AudioFormat:
        """Return the format that the training recordings suggest."""

    @property
    @abstractmethod
    def mean_seconds(self) -> float:
        """Mean duration of the training recordings in seconds, of which at most ``max_seconds`` count each."""

    # Read by models and tasks

    @cached_property
    def splits(self) -> AudioSplits:
        """Data set, loaded on first access."""
        return self.load()

    @cached_property
    def audio_format(self) -> AudioFormat:
        """Format of the recordings."""
        rate = self._sample_rate or self.known.get("sample_rate")
        seconds = self._max_seconds or self.known.get("max_seconds")
        if rate is None or seconds is None:
            default = self.default_format()
            rate, seconds = rate or default.sample_rate, seconds or default.max_seconds
        return AudioFormat(rate, seconds)

    @property
    def sample_rate(self) -> int:
        """Samples per second."""
        return self.audio_format.sample_rate

    @property
    def max_seconds(self) -> float:
        """Longest duration of a recording in seconds."""
        return self.audio_format.max_seconds

    @property
    def num_audio_samples(self) -> int:
        """Largest number of samples of a recording."""
        return self.audio_format.max_samples

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, by class index."""
        return self.splits.label_names

    @property
    def train_labels(self) -> Tensor:
        """Class indices of the training recordings."""
        return self.splits.recordings["train"].labels

    @property
    def num_train_examples(self) -> int | None:
        """Number of training recordings."""
        return len(self.train_labels) if "train" in self.splits.recordings else None

    def description(self) -> dict[str, Any]:
        """Describe the data for prediction, as plain data that is stored in checkpoints."""
        return self.audio_format.description()

    # Loading

    collate_fn = collate

    def setup(self, stage: str | None = None) -> None:
        """Create the data sets of all splits."""
        shift = self._random_shift_ms * self.sample_rate // 1000
        augmentation = Augmentation(shift, self._random_speed, self._noise_snr)
        for split, recordings in self.splits.recordings.items():
            self.split_datasets[split] = AudioExamples(recordings, self.audio_format, augmentation, self.seed)
