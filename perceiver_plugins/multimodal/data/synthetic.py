"""Synthetic clips of moving shapes, each class with its own tone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from perceiver_plugins.multimodal.data.format import Clip, ClipFormat
from perceiver_plugins.multimodal.data.module import ClipDataModule, ClipSplits, LabelledClips
from perceiver_plugins.sdk.data.module import check_positive

SHAPES = ("circle", "cross", "diamond", "square")
"""Names of the classes."""

SEMITONES = 4
"""Interval between the tones of consecutive classes (arbitrary)."""

LOWEST_TONE = 1 / 16
"""Frequency of the first class's tone in cycles per sample (arbitrary)."""


class SyntheticClipsDataModule(ClipDataModule):
    """Clips of a shape that moves in a straight line on a plain background, with a tone.

    The class determines the shape (circle, cross, diamond or square) and the pitch of the tone, four semitones higher
    for each class. Colours, size, path, loudness and phase are random, with fixed seeds. The classes are equally
    frequent.

    Args:
        num_clips: Training clips; validation and test have an eighth of this number each.
        num_frames: Frames per clip.
        frame_size: Height and width of a frame, or one number for both.
        frame_rate: Frames per second.
        samples_per_frame: Audio samples per frame.
        batch_size: Examples per batch and device, in training.
    """

    def __init__(
        self,
        num_clips: int = 1024,
        num_frames: int = 8,
        frame_size: int | tuple[int, int] = 32,
        frame_rate: int = 8,
        samples_per_frame: int = 128,
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_frames=num_frames,
            frame_size=frame_size,
            frame_rate=frame_rate,
            samples_per_frame=samples_per_frame,
            batch_size=batch_size,
            **kwargs,
        )
        check_positive(num_clips=num_clips)
        self.num_clips = num_clips

    def load(self) -> ClipSplits:
        eighth = max(1, self.num_clips // 8)
        sizes = {"train": self.num_clips, "validation": eighth, "test": eighth}
        return ClipSplits(
            list(SHAPES),
            {
                split: SyntheticClips(size, self.clip_format, seed=number)
                for number, (split, size) in enumerate(sizes.items())
            },
        )


class SyntheticClips(LabelledClips):
    """Clips that are drawn on access, from their index and the seed.

    Args:
        size: number of clips.
        clip_format: format of the clips.
        seed: random seed.
    """

    def __init__(self, size: int, clip_format: ClipFormat, seed: int) -> None:
        super().__init__(torch.arange(size) % len(SHAPES))
        self.clip_format = clip_format
        self.seed = seed

    def read(self, index: int, offset: float = 0.5) -> Clip:
        return draw_clip(int(self.labels[index]), self.clip_format, np.random.default_rng([self.seed, index]))


def draw_clip(label: int, clip_format: ClipFormat, rng: np.random.Generator) -> Clip:
    """Draw a clip of a class.

    Args:
        label: class index.
        clip_format: format of the clip.
        rng: random generator of the clip's other properties.
    """
    height, width = clip_format.frame_size
    radius = rng.uniform(0.15, 0.3) * min(height, width)
    margin = np.array([radius, radius])
    begin, end = rng.uniform(margin, np.array([height, width]) - margin, size=(2, 2))
    background, colour = rng.uniform(size=(2, 3))
    path = np.linspace(begin, end, clip_format.num_frames)
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    down = rows[:, None] - path[:, 0, None, None]
    across = columns[None, :] - path[:, 1, None, None]
    inside = _distance(SHAPES[label], np.abs(down), np.abs(across), radius)
    cover = (inside + 0.5).clip(0, 1)[:, None]  # soft edges, a pixel wide
    pixels = background[:, None, None] + cover * (colour - background)[:, None, None]
    frequency = LOWEST_TONE * 2 ** (label * SEMITONES / 12)
    phases = 2 * np.pi * (frequency * np.arange(clip_format.num_samples) + rng.uniform())
    samples = rng.uniform(0.3, 0.9) * np.sin(phases)
    return Clip(torch.from_numpy((255 * pixels).round().astype(np.uint8)), torch.from_numpy(samples.astype(np.float32)))


def _distance(shape: str, down: NDArray, across: NDArray, radius: float) -> NDArray:
    """Compute the distance of points to the edge of a shape around the origin; negative outside."""
    if shape == "circle":
        return radius - np.hypot(down, across)
    if shape == "square":
        return 0.85 * radius - np.maximum(down, across)
    if shape == "diamond":
        return (1.2 * radius - (down + across)) / np.sqrt(2)
    return np.minimum(radius - np.maximum(down, across), radius / 3 - np.minimum(down, across))
