"""Video and audio files with PyAV, whose wheels include FFmpeg."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from perceiver_plugins.sdk.errors import DataError, one_line

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp")
"""Suffixes of video files."""

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")
"""Suffixes of audio files."""

FORMATS = (
    *("3g2", "3gp", "aac", "ac3", "aiff", "amr", "apng", "asf", "au", "avi", "caf", "dv", "flac", "flv", "gif", "ivf"),
    *("m4a", "m4v", "matroska", "mj2", "mov", "mp3", "mp4", "mpeg", "mpegts", "mpegvideo", "mxf", "nut", "ogg"),
    *("vob", "w64", "wav", "webm", "webp_anim", "wv"),
)
"""FFmpeg's names of the formats that are read, whatever the file's suffix. Playlists and scripts (HLS, concat) are
excluded: they name further files to open.
"""

MEDIA_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, EOFError)
"""Errors that PyAV and numpy raise for damaged files. Any other error is a bug."""


@contextmanager
def open_media(path: str | Path, problem: str, content: bytes | None = None) -> Iterator[Any]:
    """Open a local file, and convert errors of opening and decoding it within the context to DataErrors.

    Args:
        path: the file; for messages only if ``content`` is given.
        problem: message for a file that cannot be read, such as "the clip cannot be read".
        content: content of a file in an archive. None: the file is opened.

    Yields:
        PyAV's container.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        # An absolute path cannot be mistaken for a protocol. Other protocols in the file are not followed.
        file: Any = str(Path(path).absolute()) if content is None else io.BytesIO(content)
        with av.open(file, options=_options(), **_metadata()) as container:
            yield container
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except MEDIA_ERRORS as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path}: {problem} ({reason})") from error


def video_stream(container: Any) -> Any | None:
    """Return the first video stream, or None. Cover images are not video.

    Raises:
        ValueError: if its codec is unknown.
    """
    streams = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return _first_known(streams, "video")


def audio_stream(container: Any) -> Any | None:
    """Return the first audio stream, or None.

    Raises:
        ValueError: if its codec is unknown.
    """
    return _first_known(container.streams.audio, "audio")


def start_of(stream: Any) -> float:
    """Return the start time of a stream in seconds, which need not be 0."""
    return float((stream.start_time or 0) * stream.time_base)


def duration_of(container: Any, stream: Any) -> float:
    """Return the duration of a stream in seconds."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    # Matroska has no durations of tracks; those of packets can be read without decoding.
    ends = (
        packet.pts * packet.time_base + (packet.duration or 0) * packet.time_base
        for packet in container.demux(stream)
        if packet.pts is not None
    )
    return float(max(ends, default=0)) - start_of(stream)


def time_of(frame: Any) -> float:
    """Return the time of a frame in seconds.

    Raises:
        ValueError: if it has no time stamp.
    """
    if frame.time is None:
        raise ValueError("its frames have no time stamps")
    return float(frame.time)


def seek(container: Any, time: float) -> None:
    """Seek to the last key frame at or before a time in seconds."""
    container.seek(round(time * av.time_base))


def _first_known(streams: Iterable[Any], kind: str) -> Any | None:
    stream = next(iter(streams), None)
    if stream is not None and stream.codec_context is None:
        raise ValueError(f"the codec of its {kind} is unknown")
    return stream


def _options() -> dict[str, str]:
    return {"protocol_whitelist": "file", "format_whitelist": ",".join(FORMATS)}


def _metadata() -> dict[str, Any]:
    """Return options for metadata that is not UTF-8, which PyAV before version 19 needs."""
    return {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
