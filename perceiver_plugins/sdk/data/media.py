"""Video and audio files with PyAV, whose wheels include FFmpeg."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.stream import Disposition

from perceiver_plugins.sdk.errors import DataError, one_line

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
def open_media(path: str | Path, problem: str) -> Iterator[Any]:
    """Open a local file, and convert errors of opening and decoding it within the context to DataErrors.

    Args:
        path: the file.
        problem: message for a file that cannot be read, such as "the clip cannot be read".

    Yields:
        PyAV's container.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        # An absolute path cannot be mistaken for a protocol. Other protocols in the file are not followed.
        with av.open(str(Path(path).absolute()), options=_options(), **_metadata()) as container:
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
