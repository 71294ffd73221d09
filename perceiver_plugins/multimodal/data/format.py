"""Clips of video and audio: their format, and conversion to and from batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perceiver_registry.errors import UserError

VIDEO, AUDIO = "video", "audio"

STREAMS = (VIDEO, AUDIO)
"""Streams that a clip can have."""


class Clip(NamedTuple):
    """Video and audio, or one of the two.

    Attributes:
        frames: (frames, 3, height, width), uint8, RGB; None without video.
        samples: (samples,), float32, from -1 to 1; None without audio.
    """

    frames: Tensor | None
    samples: Tensor | None


@dataclass(frozen=True)
class ClipFormat:
    """Format of clips.

    Args:
        num_frames: frames per clip.
        frame_size: height and width of a frame.
        frame_rate: frames per second.
        samples_per_frame: audio samples per frame.
        streams: streams of a clip, a subset of :data:`STREAMS`.
    """

    num_frames: int
    frame_size: tuple[int, int]
    frame_rate: int
    samples_per_frame: int
    streams: tuple[str, ...] = STREAMS

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> ClipFormat:
        """Create a format from its :meth:`description`.

        Raises:
            UserError: if the description lacks an entry.
        """
        try:
            return cls(
                description["num_frames"],
                tuple(description["frame_size"]),
                description["frame_rate"],
                description["samples_per_frame"],
                tuple(description.get("streams", STREAMS)),
            )
        except KeyError as error:
            raise UserError(
                f"the model was not trained on clips: the description of its data lacks {error.args[0]!r}"
            ) from error

    def description(self) -> dict[str, Any]:
        """Return the format as plain data, with the format of the audio for models that read it alone."""
        audio = {"sample_rate": self.sample_rate, "max_seconds": self.duration, "min_seconds": self.duration}
        return asdict(self) | {"frame_size": list(self.frame_size), "streams": list(self.streams)} | audio

    @property
    def sample_rate(self) -> int:
        """Audio samples per second."""
        return self.frame_rate * self.samples_per_frame

    @property
    def num_samples(self) -> int:
        """Audio samples per clip."""
        return self.num_frames * self.samples_per_frame

    @property
    def duration(self) -> float:
        """Duration of a clip in seconds."""
        return self.num_frames / self.frame_rate


def to_batch(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """Stack clips to a batch.

    Returns:
        ``pixel_values_videos`` (b, frames, 3, height, width), from 0 to 1, and ``input_values`` (b, samples). A stream
        that the clips lack has no entry.
    """
    batch = {}
    if frames := [clip.frames for clip in clips if clip.frames is not None]:
        batch["pixel_values_videos"] = torch.stack(frames).float().div_(255)
    if samples := [clip.samples for clip in clips if clip.samples is not None]:
        batch["input_values"] = torch.stack(samples)
    return batch


def from_batch(pixel_values_videos: Tensor, input_values: Tensor) -> list[Clip]:
    """Convert a batch, or a reconstruction of its shape, to clips. Values out of range are clamped."""
    frames = (pixel_values_videos.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    samples = input_values.float().clamp(-1, 1).cpu()
    return [Clip(*clip) for clip in zip(frames, samples, strict=True)]
