"""Sound of media files: resampled, and averaged over channels."""

from __future__ import annotations

import itertools
import wave
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from perceiver_plugins.sdk.data.media import audio_stream, duration_of, open_media, seek, start_of, time_of
from perceiver_plugins.sdk.errors import DataError

MARGIN = 0.2
"""Seconds of audio decoded before a part of a file, for the initial transients of codecs and resampling (arbitrary)."""

MAX_RATE = 2**31 - 1
"""Largest sample rate, which FFmpeg stores in 32 bits."""

MAX_VALUE = 1e10
"""Largest absolute value of a sample. Integers of 32 bits are smaller, and energies of spectrograms remain finite."""

PROBLEM = "the recording cannot be read"

TRUNCATED = 0.9
"""A recording is truncated if less than this fraction of its declared duration, minus :data:`MARGIN`, is decoded
(arbitrary)."""

UNKNOWN_DURATION = ("aac",)
"""Formats that declare no duration, which FFmpeg estimates from the bit rate."""

UNKNOWN_SIZE = 0xFFFFFF00
"""Sizes in RIFF headers from which on a program did not know the size, as it wrote to a pipe."""


class SoundHeader(NamedTuple):
    """Properties of a recording that are read without decoding it.

    Attributes:
        seconds: declared duration.
        sample_rate: samples per second.
    """

    seconds: float
    sample_rate: int


def read_header(path: str | Path, content: bytes | None = None) -> SoundHeader:
    """Read the duration and the rate of a recording.

    Args:
        path: the file; for messages only if ``content`` is given.
        content: its content, for a file in an archive.

    Raises:
        DataError: if it is missing, damaged or has no sound.
    """
    with open_media(path, PROBLEM, content) as container:
        stream = _require_sound(container, path)
        if not stream.rate:
            raise ValueError("its sample rate is unknown")
        return SoundHeader(duration_of(container, stream), stream.rate)


def read_sound(
    path: str | Path, sample_rate: int, max_seconds: float, offset: float = 0.5, content: bytes | None = None
) -> np.ndarray:
    """Read a recording or a part of it.

    Args:
        path: the file; for messages only if ``content`` is given.
        sample_rate: samples per second of the result.
        max_seconds: longest duration. Of a longer recording, a part of this duration is read.
        offset: position of the part, from 0 (the beginning) to 1 (the end).
        content: its content, for a file in an archive.

    Returns:
        (samples,) float32, averaged over channels, from -1 to 1 unless the file has larger values.

    Raises:
        DataError: if it is missing, damaged, truncated or empty, has no sound, or has invalid values.
    """
    with open_media(path, PROBLEM, content) as container:
        stream = _require_sound(container, path)
        # Starting threads takes longer than decoding a short recording; data loaders have several workers.
        stream.codec_context.thread_count = 1
        seconds = duration_of(container, stream)
        start = offset * max(0.0, seconds - max_seconds)
        samples = read_samples(container, stream, sample_rate, start, max(1, round(max_seconds * sample_rate)))
        is_estimated = container.format.name in UNKNOWN_DURATION
    if not len(samples):
        raise DataError(f"{path}: the recording is empty")
    check_values(samples, path)
    expected, found = min(seconds, max_seconds), len(samples) / sample_rate
    if (not is_estimated and found < TRUNCATED * expected - MARGIN) or _is_cut_riff(path, content):
        raise DataError(f"{path}: the recording is truncated ({found:.2f} seconds are left)")
    return samples


def read_samples(
    container: Any, stream: Any, sample_rate: int, start: float, num_samples: int, origin: float | None = None
) -> np.ndarray:
    """Read a part of an audio stream.

    Args:
        container: the file.
        stream: its audio stream.
        sample_rate: samples per second of the result.
        start: start of the part in seconds, relative to ``origin``.
        num_samples: length of the part.
        origin: time in seconds at which the part starts for ``start=0``. None: start time of the stream.

    Returns:
        (samples,) float32, averaged over channels. It has less than ``num_samples`` values if the stream ends earlier,
        and zeros before the start of the stream.
    """
    origin = start_of(stream) if origin is None else origin
    samples = np.zeros(num_samples, dtype=np.float32)
    seek(container, max(start - MARGIN, 0.0) + origin)
    frames = _until(container, stream, origin + start + num_samples / sample_rate + MARGIN)
    first = next(frames, None)
    if first is None:
        return samples[:0]
    position = round((time_of(first) - origin - start) * sample_rate)  # index of the next sample in the part
    for values in resample(itertools.chain([first], frames), sample_rate):
        inside = values[max(0, -position) : max(0, num_samples - position)]
        samples[max(0, position) : max(0, position) + len(inside)] = inside
        position += len(values)
    return samples[: max(0, position)]


def resample(frames: Iterable[Any], sample_rate: int) -> Iterator[np.ndarray]:
    """Resample audio frames, at least one, and average them over channels.

    Args:
        frames: PyAV's frames, of one rate and layout.
        sample_rate: samples per second of the result.

    Yields:
        (samples,) float32.
    """
    # FFmpeg's own mix to mono is a weighted sum, which can exceed 1. Interleaved samples ("flt") allow any number of
    # channels.
    resampler = av.AudioResampler(format="flt", rate=sample_rate)
    for frame in itertools.chain(frames, [None]):
        for part in resampler.resample(frame):
            yield part.to_ndarray().reshape(part.samples, -1).mean(axis=1)


def resample_array(samples: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Resample an array.

    Args:
        samples: (samples,) float32.
        rate: its samples per second, at most :data:`MAX_RATE`.
        sample_rate: samples per second of the result.

    Returns:
        (samples,) float32; without values if the array is shorter than a sample of the result.
    """
    if rate == sample_rate:
        return samples
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples, np.float32)[None], format="flt", layout="mono")
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
    return np.concatenate([np.zeros(0, np.float32), *resample([frame], sample_rate)])


def check_values(samples: np.ndarray, name: str | Path) -> None:
    """Check the values of samples.

    Args:
        samples: (samples,), floating point.
        name: name of the recording in messages.

    Raises:
        DataError: if a value is not finite, or larger than :data:`MAX_VALUE`.
    """
    if not (np.abs(samples) <= MAX_VALUE).all():
        raise DataError(f"{name}: the recording has values that are not finite or larger than {MAX_VALUE:g}")


def write_wav(path: str | Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write samples (samples,) from -1 to 1 to a .wav file of 16 bits."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, sample_rate, 0, "NONE", ""))
        file.writeframes((samples.clip(-1, 1) * (2**15 - 1)).round().astype("<i2").tobytes())


def _require_sound(container: Any, path: str | Path) -> Any:
    stream = audio_stream(container)
    if stream is None:
        raise DataError(f"{path}: the file has no sound")
    return stream


def _is_cut_riff(path: str | Path, content: bytes | None) -> bool:
    """Return whether a .wav file is shorter than its header declares, which FFmpeg does not report."""
    if content is None:
        with open(path, "rb") as file:
            head = file.read(8)
        size = Path(path).stat().st_size
    else:
        head, size = content[:8], len(content)
    declared = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and declared < UNKNOWN_SIZE and size < declared + 8


def _until(container: Any, stream: Any, end: float) -> Iterator[Any]:
    """Iterate over the audio frames that begin before a time in seconds."""
    for frame in container.decode(stream):
        if time_of(frame) > end:
            return
        yield frame
