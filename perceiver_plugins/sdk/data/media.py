"""Video and audio files, opened with PyAV, whose wheels bring FFmpeg along."""

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
"""FFmpeg's names of the formats that files may be in, whatever they are named. Playlists and scripts (HLS, concat),
which name further files to open, are not among them.
"""

MEDIA_ERRORS = (av.FFmpegError, OSError, ValueError, ArithmeticError, EOFError)
"""Errors of PyAV and numpy on damaged files. Others are faults of this code."""


@contextmanager
def open_media(path: str | Path, problem: str) -> Iterator[Any]:
    """Open a local file and name it in errors, also in those of decoding it within the context.

    Args:
        path: the file.
        problem: what to say if it cannot be read, such as "the clip cannot be read".

    Yields:
        PyAV's container.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        # An absolute path cannot be taken for a protocol; within the file, no other protocol is followed.
        with av.open(str(Path(path).absolute()), options=_options(), **_metadata()) as container:
            yield container
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file") from error
    except MEDIA_ERRORS as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{path}: {problem} ({reason})") from error


def video_stream(container: Any) -> Any | None:
    """The first video stream, or None. The picture of a record's sleeve is no video.

    Raises:
        ValueError: if its codec is unknown.
    """
    streams = (stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)
    return _first_known(streams, "video")


def audio_stream(container: Any) -> Any | None:
    """The first audio stream, or None.

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
    """Options for titles that are not UTF-8: since version 19, PyAV decodes them by itself."""
    return {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}
