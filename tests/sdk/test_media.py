"""Video and audio files: metadata, playlists, errors."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from perceiver_plugins.sdk.data.media import audio_stream, open_media, video_stream
from perceiver_plugins.sdk.errors import DataError


def write_video(path: Path, title: str = "") -> Path:
    with av.open(str(path), "w") as container:
        container.metadata["title"] = title
        stream = container.add_stream("mpeg4", rate=4)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_metadata_need_not_be_utf8(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", "title")
    path.write_bytes(path.read_bytes().replace(b"title", b"\xe9\xe9tle"))
    with open_media(path, "cannot be read") as container:
        assert video_stream(container) is not None
        assert audio_stream(container) is None


@pytest.mark.parametrize(
    "content",
    ["ffconcat version 1.0\nfile a.mp4\n", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n"],
)
def test_playlists_are_not_followed(tmp_path: Path, content: str) -> None:
    write_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_text(content)
    with pytest.raises(DataError, match=r"b\.mp4: cannot be read \("):
        with open_media(tmp_path / "b.mp4", "cannot be read"):
            pass


def test_file_name_is_not_read_as_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "a.mp4").rename(tmp_path / "concat:a.mp4")
    with open_media("concat:a.mp4", "cannot be read") as container:
        assert video_stream(container) is not None


def test_missing_and_damaged_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    for name, message in (("a.mp4", r"a\.mp4: cannot be read \("), ("b.mp4", r"b\.mp4: no such file")):
        with pytest.raises(DataError, match=message):
            with open_media(tmp_path / name, "cannot be read"):
                pass


@pytest.mark.parametrize("error", [TypeError, AttributeError, NameError])
def test_programming_errors_are_not_converted(tmp_path: Path, error: type[Exception]) -> None:
    path = write_video(tmp_path / "a.mp4")
    with pytest.raises(error), open_media(path, "cannot be read"):
        raise error


def test_incompatible_library_is_not_reported_as_a_damaged_file(tmp_path, monkeypatch) -> None:
    path = write_video(tmp_path / "a.mp4")
    monkeypatch.setattr(av, "open", lambda file: None)
    with pytest.raises(TypeError), open_media(path, "cannot be read"):
        pass


def test_unknown_codec_is_reported(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4", b"V_OTHER"))
    with pytest.raises(DataError, match=r"a\.mkv: cannot be read \(the codec of its video is unknown\)"):
        with open_media(path, "cannot be read") as container:
            video_stream(container)
