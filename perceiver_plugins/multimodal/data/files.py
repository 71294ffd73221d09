"""Clips in video and audio files, read and written with PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from perceiver_plugins.multimodal.data.format import AUDIO, VIDEO, Clip, ClipFormat
from perceiver_plugins.sdk.data.media import audio_stream, open_media, video_stream
from perceiver_plugins.sdk.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
"""Suffixes of video files."""

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")
"""Suffixes of sound files."""

PROBLEM = "the clip cannot be read"

AUDIO_MARGIN = 0.2
"""Seconds of audio that are decoded before a clip begins: codecs and resampling need some to get going."""


class MissingStreamError(DataError):
    """A clip without video, or without audio."""


def read_clip(path: str | Path, clip_format: ClipFormat, place: float = 0.5) -> Clip:
    """Reads a part of a video file.

    Of the video, the frames are taken that are to be seen at the times of the clip; the middle of each is resized. The
    audio is the mean of its channels, resampled; where the file has video but no more audio, it is silent.

    Args:
        path: the file.
        clip_format: what the clip is to be like.
        place: which part of the file: 0 the first, 1 the last, 0.5 the one in the middle.

    Raises:
        DataError: if the file is missing, too short, damaged, or without a stream that the clip consists of.
    """
    with open_media(path, PROBLEM) as container:
        streams: dict[str, Any] = {VIDEO: video_stream(container), AUDIO: audio_stream(container)}
        for kind in clip_format.streams:
            if streams[kind] is None:
                raise MissingStreamError(f"{path}: the clip has no {kind}")
            # For short clips, threads take longer to start than to work; many clips have many workers.
            streams[kind].codec_context.thread_count = 1
        main = streams[clip_format.streams[0]]
        duration = _duration(container, main)
        if duration < clip_format.duration - 0.5 / clip_format.frame_rate:
            raise DataError(
                f"{path}: the clip is too short: {duration:.2f} seconds, {clip_format.duration:.2f} are needed "
                f"({clip_format.num_frames} frames, {clip_format.frame_rate} a second)"
            )
        start = place * max(0.0, duration - clip_format.duration)
        frames = samples = None
        if VIDEO in clip_format.streams:
            pixels = _read_frames(container, streams[VIDEO], clip_format, start)
            frames = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        if AUDIO in clip_format.streams:
            values = _read_samples(container, streams[AUDIO], clip_format, start, _origin(main))
            samples = torch.from_numpy(values)
    return Clip(frames, samples)


def find_streams(path: str | Path) -> set[str]:
    """Kinds of the streams in a file.

    Raises:
        DataError: if it cannot be read.
    """
    with open_media(path, PROBLEM) as container:
        found = {VIDEO: video_stream(container), AUDIO: audio_stream(container)}
    return {kind for kind, stream in found.items() if stream is not None}


def write_clip(path: str | Path, clip: Clip, clip_format: ClipFormat, lossless: bool = False) -> None:
    """Writes a clip to a file, whose format is that of its suffix.

    Args:
        path: the file.
        clip: what to write, with video and audio.
        clip_format: what it is like.
        lossless: with codecs that change nothing (for ``.mkv``), instead of H.264 and AAC (for ``.mp4``).
    """
    video_codec, audio_codec, pixels = ("ffv1", "pcm_s16le", "bgr0") if lossless else ("libx264", "aac", "yuv420p")
    assert clip.frames is not None
    assert clip.samples is not None
    height, width = clip.frames.shape[2:]
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream(video_codec, rate=clip_format.frame_rate)
        # Codecs that keep colours at half the resolution need sides of even length.
        video.height, video.width, video.pix_fmt = height + height % 2, width + width % 2, pixels
        # Not each codec takes any rate: PyAV resamples what it is given.
        rates = av.Codec(audio_codec, "w").audio_rates or [clip_format.sample_rate]
        rate = min((rate for rate in rates if rate >= clip_format.sample_rate), default=max(rates))
        audio: Any = container.add_stream(audio_codec, rate=rate, layout="mono")
        samples = (clip.samples.clamp(-1, 1) * (2**15 - 1)).round().to(torch.int16).numpy()[None]
        for number, image in enumerate(clip.frames.permute(0, 2, 3, 1).numpy()):
            even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
            # With its frame: players, and who seeks, expect both in one place.
            start = number * clip_format.samples_per_frame
            heard = np.ascontiguousarray(samples[:, start : start + clip_format.samples_per_frame])
            frame = av.AudioFrame.from_ndarray(heard, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = clip_format.sample_rate, Fraction(1, clip_format.sample_rate)
            frame.pts = start
            container.mux(audio.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _origin(stream: Any) -> float:
    """Time at which a stream begins, in seconds: not all begin at 0."""
    return float((stream.start_time or 0) * stream.time_base)


def _time(frame: Any) -> float:
    """When a frame is shown or heard, in seconds.

    Raises:
        ValueError: if the file does not say.
    """
    if frame.time is None:
        raise ValueError("its frames have no time stamps")
    return float(frame.time)


def _seek(container: Any, time: float) -> None:
    """Seek to the last key frame at or before a time of the file."""
    container.seek(round(time * av.time_base))


def _duration(container: Any, stream: Any) -> float:
    """Seconds of a stream in a file."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # Matroska does not say how long each track is: its packets do, which need not be decoded.
    ends = (
        packet.pts * packet.time_base + (packet.duration or 0) * packet.time_base
        for packet in container.demux(stream)
        if packet.pts is not None
    )
    return float(max(ends, default=0)) - _origin(stream)


def _read_frames(container: Any, stream: Any, clip_format: ClipFormat, start: float) -> np.ndarray:
    """(frames, height, width, 3) uint8: what is to be seen at each time of the clip."""
    # In the middle of the time that a frame is shown, so that rounding of times makes no difference.
    times = start + (np.arange(clip_format.num_frames) + 0.5) / clip_format.frame_rate + _origin(stream)
    _seek(container, start + _origin(stream))
    taken: list[np.ndarray] = []
    shown = None
    for frame in container.decode(stream):
        while shown is not None and len(taken) < len(times) and _time(frame) > times[len(taken)]:
            taken.append(shown)
        if len(taken) == len(times):
            break
        shown = _resized(frame, clip_format.frame_size)
    if shown is None:
        raise ValueError("there are no frames in it")
    taken += [shown] * (len(times) - len(taken))  # the last one is shown until the end
    return np.stack(taken)


def _resized(frame: Any, frame_size: tuple[int, int]) -> np.ndarray:
    """The middle of a frame, upright, in another size: (height, width, 3) uint8."""
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
    # Phones hold the camera's picture as it is, and say by how many degrees to turn it counterclockwise.
    return np.rot90(image[top : top + height, left : left + width], turns)


def _read_samples(container: Any, stream: Any, clip_format: ClipFormat, start: float, origin: float) -> np.ndarray:
    """(samples) float32 from -1 to 1: the audio of the clip, the mean of all channels.

    Args:
        container: the file.
        stream: its audio.
        clip_format: what the clip is like.
        start: time at which the clip begins, from that of the file's first frame on.
        origin: time of that frame.
    """
    rate, number = clip_format.sample_rate, clip_format.num_samples
    # FFmpeg's own mix to one channel is a weighted sum, which exceeds 1. Interleaved samples may be of any number of
    # channels.
    resampler = av.AudioResampler(format="flt", rate=rate)
    samples = np.zeros(number, dtype=np.float32)
    _seek(container, max(start - AUDIO_MARGIN, 0.0) + origin)
    place = None  # of the samples that come next, relative to the clip's first
    for frame in (*_until(container, stream, origin + start + clip_format.duration + AUDIO_MARGIN), None):
        if place is None:
            if frame is None:
                break
            place = round((_time(frame) - origin - start) * rate)
        for part in resampler.resample(frame):
            values = part.to_ndarray().reshape(part.samples, -1).mean(axis=1)
            own = values[max(0, -place) : max(0, number - place)]
            samples[max(0, place) : max(0, place) + len(own)] = own
            place += len(values)
    return samples.clip(-1, 1)


def _until(container: Any, stream: Any, end: float) -> Iterator[Any]:
    """The frames of audio that begin before a time of the file."""
    for frame in container.decode(stream):
        if _time(frame) > end:
            return
        yield frame
