"""Reading and writing of video and audio files with PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from perceiver_plugins.multimodal.data.format import AUDIO, VIDEO, Clip, ClipFormat
from perceiver_plugins.sdk.data.media import (
    audio_stream,
    duration_of,
    open_media,
    seek,
    start_of,
    time_of,
    video_stream,
)
from perceiver_plugins.sdk.data.sound import read_samples
from perceiver_plugins.sdk.errors import DataError

PROBLEM = "the clip cannot be read"


class MissingStreamError(DataError):
    """Clip without video or without audio."""


def read_clip(path: str | Path, clip_format: ClipFormat, offset: float = 0.5) -> Clip:
    """Read a clip from a video or audio file.

    Frames are sampled at the times of the clip, cropped to the centre and resized. The audio is resampled and averaged
    over its channels; it is silent after the end of the audio stream.

    Args:
        path: the file.
        clip_format: format of the clip.
        offset: part of the file to read, from 0 (the beginning) to 1 (the end).

    Raises:
        DataError: if the file is missing, damaged or too short, or lacks a stream of the format.
    """
    with open_media(path, PROBLEM) as container:
        streams: dict[str, Any] = {VIDEO: video_stream(container), AUDIO: audio_stream(container)}
        for kind in clip_format.streams:
            if streams[kind] is None:
                raise MissingStreamError(f"{path}: the clip has no {kind}")
            # Starting threads takes longer than decoding a short clip; data loaders have several workers.
            streams[kind].codec_context.thread_count = 1
        main = streams[clip_format.streams[0]]
        duration = duration_of(container, main)
        if duration < clip_format.duration - 0.5 / clip_format.frame_rate:
            raise DataError(
                f"{path}: the clip is too short: {duration:.2f} seconds, {clip_format.duration:.2f} are needed "
                f"({clip_format.num_frames} frames, {clip_format.frame_rate} a second)"
            )
        start = offset * max(0.0, duration - clip_format.duration)
        frames = samples = None
        if VIDEO in clip_format.streams:
            pixels = _read_frames(container, streams[VIDEO], clip_format, start)
            frames = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if AUDIO in clip_format.streams:
            rate, number = clip_format.sample_rate, clip_format.num_samples
            values = read_samples(container, streams[AUDIO], rate, start, number, start_of(main))
            samples = torch.from_numpy(np.pad(values, (0, number - len(values))).clip(-1, 1))
    return Clip(frames, samples)


def find_streams(path: str | Path) -> set[str]:
    """Return which of "video" and "audio" a file has.

    Raises:
        DataError: if it cannot be read.
    """
    with open_media(path, PROBLEM) as container:
        found = {VIDEO: video_stream(container), AUDIO: audio_stream(container)}
    return {kind for kind, stream in found.items() if stream is not None}


def write_clip(path: str | Path, clip: Clip, clip_format: ClipFormat, lossless: bool = False) -> None:
    """Write a clip to a file; the suffix determines the container.

    Args:
        path: the file.
        clip: clip with video and audio.
        clip_format: format of the clip.
        lossless: use lossless codecs (for ``.mkv``) instead of H.264 and AAC (for ``.mp4``).
    """
    video_codec, audio_codec, pixels = ("ffv1", "pcm_s16le", "bgr0") if lossless else ("libx264", "aac", "yuv420p")
    assert clip.frames is not None
    assert clip.samples is not None
    height, width = clip.frames.shape[2:]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(video_codec, rate=clip_format.frame_rate)
        # Codecs with chroma subsampling need even sides.
        video.height, video.width, video.pix_fmt = height + height % 2, width + width % 2, pixels
        # Some codecs only support certain rates: PyAV resamples the audio.
        rates = av.Codec(audio_codec, "w").audio_rates or [clip_format.sample_rate]
        rate = min((rate for rate in rates if rate >= clip_format.sample_rate), default=max(rates))
        audio: Any = container.add_stream(audio_codec, rate=rate, layout="mono")
        samples = (clip.samples.clamp(-1, 1) * (2**15 - 1)).round().to(torch.int16).numpy()[None]
        for number, image in enumerate(clip.frames.permute(0, 2, 3, 1).numpy()):
            even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
            # Audio is interleaved with its frame, as players and seeking expect.
            start = number * clip_format.samples_per_frame
            part = np.ascontiguousarray(samples[:, start : start + clip_format.samples_per_frame])
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = clip_format.sample_rate, Fraction(1, clip_format.sample_rate)
            frame.pts = start
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _read_frames(container: Any, stream: Any, clip_format: ClipFormat, start: float) -> np.ndarray:
    """Read the frames (frames, height, width, 3), uint8, that are shown at the times of a clip."""
    # The middle of the interval in which a frame is shown is robust to rounding of times.
    times = start + (np.arange(clip_format.num_frames) + 0.5) / clip_format.frame_rate + start_of(stream)
    seek(container, start + start_of(stream))
    frames: list[np.ndarray] = []
    shown = None
    for frame in container.decode(stream):
        while shown is not None and len(frames) < len(times) and time_of(frame) > times[len(frames)]:
            frames.append(shown)
        if len(frames) == len(times):
            break
        shown = _resize(frame, clip_format.frame_size)
    if shown is None:
        raise ValueError("it has no frames")
    frames += [shown] * (len(times) - len(frames))  # the last frame is shown until the end
    return np.stack(frames)


def _resize(frame: Any, frame_size: tuple[int, int]) -> np.ndarray:
    """Rotate a frame upright, crop its centre and resize it to (height, width, 3), uint8."""
    turns = round(frame.rotation / 90) % 4
    height, width = frame_size if turns % 2 == 0 else frame_size[::-1]
    scale = max(height / frame.height, width / frame.width)
    whole_height, whole_width = max(height, round(frame.height * scale)), max(width, round(frame.width * scale))
    image = frame.reformat(
        width=whole_width,
        height=whole_height,
        format="rgb24",
        interpolation="AREA" if scale < 1 else "BICUBIC",
        threads=1,
    ).to_ndarray()
    top, left = (whole_height - height) // 2, (whole_width - width) // 2
    # Phones store the camera's image unrotated, with the counterclockwise rotation as metadata.
    return np.rot90(image[top : top + height, left : left + width], turns)
