"""Format of recordings, and their augmentation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from perceiver_plugins.sdk.data.collating import PadCollator
from perceiver_plugins.sdk.data.sound import MAX_RATE
from perceiver_registry.errors import UserError

collate = PadCollator({"input_values": "attention_mask"})
"""Collate function that pads recordings to the longest of the batch and adds a mask."""

MAX_SAMPLES = 2**28
"""Largest number of samples of a recording, 1 GiB or 4.6 hours at 16 kHz (arbitrary)."""


@dataclass(frozen=True)
class AudioFormat:
    """Format of recordings.

    Args:
        sample_rate: samples per second.
        max_seconds: longest duration. Of a longer recording, a part of this duration is read.
        min_seconds: shortest duration, for models of recordings of one length.
    """

    sample_rate: int
    max_seconds: float
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        """Validate values that may come from a checkpoint.

        Raises:
            UserError: if one is invalid.
        """
        if type(self.sample_rate) is not int or not 1 <= self.sample_rate <= MAX_RATE:
            raise UserError(f"audio format: sample_rate: must be a whole number from 1 to {MAX_RATE}")
        for name, value in (("max_seconds", self.max_seconds), ("min_seconds", self.min_seconds)):
            if type(value) not in (int, float) or not 0 <= value <= MAX_SAMPLES:
                raise UserError(f"audio format: {name}: must be a number from 0 to {MAX_SAMPLES}")
        if not self.max_seconds or self.max_seconds * self.sample_rate > MAX_SAMPLES:
            raise UserError(
                f"audio format: max_seconds: must be more than 0 and at most {MAX_SAMPLES / self.sample_rate:g}, "
                f"{MAX_SAMPLES} samples"
            )

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> AudioFormat:
        """Create a format from its :meth:`description`.

        Raises:
            UserError: if the description lacks an entry, or if one is invalid.
        """
        try:
            return cls(description["sample_rate"], description["max_seconds"], description.get("min_seconds", 0.0))
        except KeyError as error:
            raise UserError(
                f"the model was not trained on sound: the description of its data lacks {error.args[0]!r}"
            ) from error

    def description(self) -> dict[str, Any]:
        """Return the format as plain data."""
        return asdict(self)

    @property
    def max_samples(self) -> int:
        """Largest number of samples of a recording."""
        return max(1, round(self.max_seconds * self.sample_rate))


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of training recordings.

    Args:
        random_shift: largest shift in samples. Zeros are added at the beginning, or samples removed from it.
        random_speed: largest relative change of the speed, and with it of the pitch.
        noise_snr: lowest signal-to-noise ratio of white noise in decibels. The ratio is drawn from the 30 dB above it.
            None: no noise.
    """

    random_shift: int = 0
    random_speed: float = 0.0
    noise_snr: float | None = None

    def __call__(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augment samples (samples,), float32."""
        if self.random_speed:
            times = np.arange(0, len(samples), 1 + rng.uniform(-self.random_speed, self.random_speed))
            samples = np.interp(times, np.arange(len(samples)), samples).astype(np.float32)
        if self.random_shift:
            # At least half of the recording remains.
            shift = int(rng.integers(-min(self.random_shift, len(samples) // 2), self.random_shift + 1))
            samples = np.pad(samples, (shift, 0)) if shift > 0 else samples[-shift:]
        if self.noise_snr is not None:
            snr = self.noise_snr + rng.uniform(0, 30)
            scale = np.sqrt(np.mean(samples**2)) * 10 ** (-snr / 20)
            samples = samples + np.float32(scale) * rng.standard_normal(len(samples), dtype=np.float32)
        return samples
