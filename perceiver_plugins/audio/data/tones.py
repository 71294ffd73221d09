"""Synthetic tones with a known answer: the shape of their pitch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from perceiver_plugins.audio.data.format import AudioFormat
from perceiver_plugins.audio.data.module import AudioDataModule, AudioSplits, LabelledRecordings
from perceiver_plugins.sdk.data.module import check_positive

PATTERNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "arch": lambda time: np.sin(np.pi * time),
    "dip": lambda time: 1 - np.sin(np.pi * time),
    "falling": lambda time: 1 - time,
    "rising": lambda time: time,
    "steady": lambda time: np.full_like(time, 0.5),
    "trill": lambda time: 0.5 + 0.5 * np.sin(16 * np.pi * time),
}
"""Pitch of each class, from 0 to 1, by the time from 0 to 1."""

LOWEST_PITCH, HIGHEST_PITCH = 200.0, 600.0
"""Range of the lowest frequency of a tone in hertz (arbitrary)."""

INTERVALS = (0.5, 1.0)
"""Range of the interval between the lowest and the highest frequency of a tone in octaves (arbitrary)."""

SHORTEST, LONGEST = 0.4, 1.0
"""Range of the duration of a tone in seconds (arbitrary)."""

SNRS = (0.0, 20.0)
"""Range of the signal-to-noise ratio in decibels (arbitrary)."""

SAMPLE_RATE = 4000
"""Default sample rate: more than twice the highest frequency, 1200 Hz."""


class TonePatternsDataModule(AudioDataModule):
    """Tones in white noise whose pitch follows a pattern: rising, falling, steady, an arch, a dip or a trill.

    Pitch, interval, duration, loudness, phase and noise are random, with fixed seeds. The classes are equally frequent.

    Args:
        num_recordings: Training recordings; validation and test have a quarter of this number each.
    """

    def __init__(self, num_recordings: int = 960, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(num_recordings=num_recordings)
        self.num_recordings = num_recordings

    def load(self) -> AudioSplits:
        quarter = max(1, self.num_recordings // 4)
        sizes = {"train": self.num_recordings, "validation": quarter, "test": quarter}
        recordings: dict[str, LabelledRecordings] = {
            split: TonePatterns(size, seed) for seed, (split, size) in enumerate(sizes.items())
        }
        return AudioSplits(list(PATTERNS), recordings)

    def default_format(self) -> AudioFormat:
        return AudioFormat(SAMPLE_RATE, LONGEST)

    @property
    def mean_seconds(self) -> float:
        return (SHORTEST + LONGEST) / 2


class TonePatterns(LabelledRecordings):
    """Tones that are synthesised on access, from their index and the seed.

    Args:
        size: number of recordings.
        seed: random seed.
    """

    def __init__(self, size: int, seed: int) -> None:
        super().__init__(torch.arange(size) % len(PATTERNS))
        self.seed = seed

    def read(self, index: int, audio_format: AudioFormat, offset: float) -> np.ndarray:
        rng = np.random.default_rng([self.seed, index])
        samples = synthesise(list(PATTERNS)[int(self.labels[index])], audio_format.sample_rate, rng)
        start = round(offset * max(0, len(samples) - audio_format.max_samples))
        return samples[start : start + audio_format.max_samples]


def synthesise(pattern: str, sample_rate: int, rng: np.random.Generator) -> np.ndarray:
    """Synthesise a tone of a class.

    Args:
        pattern: name of the class.
        sample_rate: samples per second.
        rng: random generator of the tone's other properties.

    Returns:
        (samples,) float32.
    """
    time = np.linspace(0, 1, round(rng.uniform(SHORTEST, LONGEST) * sample_rate))
    octaves = rng.uniform(*INTERVALS) * PATTERNS[pattern](time)
    frequencies = rng.uniform(LOWEST_PITCH, HIGHEST_PITCH) * 2**octaves
    tone = np.sin(2 * np.pi * (np.cumsum(frequencies) / sample_rate + rng.uniform()))
    noise = rng.standard_normal(len(tone)) * 10 ** (-rng.uniform(*SNRS) / 20) / np.sqrt(2)
    loudness = rng.uniform(0.05, 0.25)
    return (loudness * (tone + noise)).clip(-1, 1).astype(np.float32)
