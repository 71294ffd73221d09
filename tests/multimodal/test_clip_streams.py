"""Audio with several channels, silent videos and audio files."""

from __future__ import annotations

import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from perceiver_plugins.multimodal.adapters import AudioPatchesInputAdapter, VideoPatchesInputAdapter
from perceiver_plugins.multimodal.data import VideoFolderDataModule, read_clip
from perceiver_plugins.multimodal.data.format import ClipFormat
from perceiver_plugins.multimodal.reading import ClipReader
from perceiver_plugins.sdk.errors import DataError

RATE = 8000
FORMAT = ClipFormat(num_frames=4, frame_size=(8, 8), frame_rate=4, samples_per_frame=RATE // 4)
OPTIONS = {"num_frames": 4, "frame_size": 8, "frame_rate": 4, "samples_per_frame": RATE // 4}
VIDEO_MODEL = VideoPatchesInputAdapter(4, (8, 8), (1, 4, 4), 2, (4, 2, 2))
AUDIO_MODEL = AudioPatchesInputAdapter(RATE, 80, 4, RATE)


def tone(amplitude: float = 0.9, seconds: float = 1.5) -> np.ndarray:
    return amplitude * np.sin(2 * np.pi * 440 * np.arange(round(RATE * seconds)) / RATE)


def write(path: Path, channels: np.ndarray | None, codec: str = "pcm_s16le", layout: str = "mono", video: bool = True):
    """Write a file with audio (channels, samples) from -1 to 1, or without audio, and optionally a grey video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        # All streams are added before the first packet.
        pictures = container.add_stream("ffv1", rate=4, width=16, height=16, pix_fmt="yuv420p") if video else None
        sound = None if channels is None else container.add_stream(codec, rate=RATE, layout=layout)
        if pictures:
            for _ in range(6):
                frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), 90, np.uint8), format="rgb24")
                container.mux(pictures.encode(frame))
            container.mux(pictures.encode(None))
        if sound:
            for start in range(0, channels.shape[1], 800):
                part = np.ascontiguousarray(channels[:, start : start + 800].T.astype(np.float32))
                frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="flt", layout=layout)
                frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
                container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
    return path


def write_wav(path: Path, samples: np.ndarray, num_channels: int = 1, width: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = (np.repeat(samples[:, None], num_channels, axis=1) * (2 ** (8 * width - 1) - 1)).astype("<i4")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(num_channels)
        file.setsampwidth(width)
        file.setframerate(RATE)
        file.writeframes(whole.view(np.uint8).reshape(-1, 4)[:, :width].tobytes())
    return path


@pytest.mark.parametrize(
    ("codec", "layout", "number"),
    [("pcm_s24le", "mono", 1), ("pcm_s16le", "stereo", 2), ("flac", "5.1", 6), ("pcm_f32le", "7.1", 8)],
)
def test_channels_are_averaged(tmp_path, codec, layout, number):
    path = write(tmp_path / "a.mkv", np.repeat(tone()[None], number, axis=0), codec, layout)
    samples = read_clip(path, FORMAT, offset=0.0).samples.numpy()
    assert np.abs(samples - tone()[: len(samples)]).max() < 0.002


def test_channels_have_equal_weight(tmp_path):
    channels = np.zeros((6, 12000))
    for number, level in enumerate((0.6, -0.3, 0.9, 0.6, 0.0, 0.0)):  # the fourth is the low-frequency channel
        channels[number] = level
    samples = read_clip(write(tmp_path / "a.mkv", channels, "pcm_f32le", "5.1"), FORMAT).samples
    torch.testing.assert_close(samples, torch.full_like(samples, 0.3), rtol=0, atol=1e-3)


def test_averaged_audio_is_resampled(tmp_path):
    path = write(tmp_path / "a.mkv", np.repeat(tone()[None], 2, axis=0), "pcm_f32le", "stereo")
    half = ClipFormat(4, (8, 8), 4, RATE // 8)
    samples = read_clip(path, half, offset=0.0).samples.numpy()
    assert np.abs(samples - tone()[::2][: len(samples)])[50:-50].max() < 0.01


@pytest.mark.parametrize(("width", "num_channels"), [(2, 1), (3, 2), (2, 3)])
def test_wav_files_are_read(tmp_path, width, num_channels):
    path = write_wav(tmp_path / "a.wav", tone(), num_channels, width)
    audio = ClipFormat(4, (8, 8), 4, RATE // 4, ("audio",))
    clip = read_clip(path, audio, offset=0.0)
    assert clip.frames is None
    assert np.abs(clip.samples.numpy() - tone()[: len(clip.samples)]).max() < 0.001
    with pytest.raises(DataError, match=r"a\.wav: the clip has no video"):
        read_clip(path, FORMAT)
    with pytest.raises(DataError, match=r"a\.wav: the clip is too short: 1\.50 seconds, 2\.00 are needed"):
        read_clip(path, ClipFormat(8, (8, 8), 4, RATE // 4, ("audio",)))


@pytest.mark.parametrize(("suffix", "codec"), [("flac", "flac"), ("mp3", "libmp3lame"), ("ogg", "libopus")])
def test_compressed_audio_files_are_read(tmp_path, suffix, codec):
    path = write(tmp_path / f"a.{suffix}", tone()[None], codec, video=False)
    samples = read_clip(path, ClipFormat(4, (8, 8), 4, RATE // 4, ("audio",))).samples.numpy()
    assert samples.std() == pytest.approx(0.9 / 2**0.5, abs=0.05)


def folder(root: Path, kind: str) -> Path:
    """Write two classes of silent videos, of audio files, or of videos of which some have audio."""
    for name in "ab":
        for i in range(3):
            if kind == "sounds":
                write_wav(root / name / f"{i}.wav", tone())
            else:
                write(root / name / f"{i}.mkv", tone()[None] if kind == "mixed" and i < 2 else None)
    return root


@pytest.mark.parametrize(
    ("kind", "streams", "entry", "shape", "fitting", "other"),
    [
        ("silent", ("video",), "pixel_values_videos", (4, 3, 8, 8), VIDEO_MODEL, AUDIO_MODEL),
        ("sounds", ("audio",), "input_values", (RATE,), AUDIO_MODEL, VIDEO_MODEL),
    ],
)
def test_data_with_one_stream(tmp_path, kind, streams, entry, shape, fitting, other):
    data = VideoFolderDataModule(str(folder(tmp_path, kind)), **OPTIONS, batch_size=2)
    data.setup()
    assert data.streams == streams
    for batch in (*data.train_dataloader(), *data.val_dataloader()):
        assert set(batch) == {entry, "labels"}
        assert batch[entry].shape[1:] == shape
    fitting.check_data(data)
    with pytest.raises(ValueError, match=r"the data's clips have no (audio|video), which the model reads"):
        other.check_data(data)
    reader = ClipReader(data.description(), fitting)
    files = reader.expand([str(tmp_path / "a")])
    assert len(files) == 3
    assert reader.collate([reader.read(file) for file in files])[entry].shape == (3, *shape)


def test_reader_ignores_streams_that_the_model_does_not_read(tmp_path):
    description = ClipFormat(4, (8, 8), 4, RATE // 4).description()
    silent, sound = write(tmp_path / "a.mkv", None), write_wav(tmp_path / "b.wav", tone())
    assert ClipReader(description, VIDEO_MODEL).read(str(silent)).samples is None
    assert ClipReader(description, AUDIO_MODEL).read(str(sound)).frames is None
    del description["streams"]  # as in older checkpoints
    assert ClipReader(description, VIDEO_MODEL).read(str(silent)).frames.shape == (4, 3, 8, 8)


def test_some_videos_are_silent(tmp_path):
    path = folder(tmp_path, "mixed")
    data = VideoFolderDataModule(str(path), **OPTIONS, batch_size=1)
    data.setup()
    assert data.streams == ("video", "audio")
    with pytest.raises(DataError, match=r"2\.mkv: the clip has no audio; skip_.*; streams=video or streams=audio"):
        [*data.train_dataloader(), *data.val_dataloader()]
    data = VideoFolderDataModule(str(path), **OPTIONS, batch_size=1, streams="video")
    data.setup()
    assert sum(len(batch["labels"]) for batch in (*data.train_dataloader(), *data.val_dataloader())) == 6
    data = VideoFolderDataModule(str(path), **OPTIONS, batch_size=1, streams="audio", skip_unreadable=True)
    data.setup()
    assert {key for batch in data.train_dataloader() for key in batch} == {"input_values", "labels"}
    assert sum(map(len, data.splits.clips.values())) == 4


def test_audio_files_beside_videos_are_ignored(tmp_path, caplog):
    folder(tmp_path, "silent")
    write_wav(tmp_path / "a" / "0.wav", tone())
    with caplog.at_level("INFO"):
        data = VideoFolderDataModule(str(tmp_path), **OPTIONS)
        assert len(data.train_labels) == 4
    assert "1 files left out: 1 .wav; clips end in .mp4" in caplog.text


def test_cover_art_is_not_video(tmp_path):
    path = tmp_path / "a.mp3"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        sleeve = container.add_stream("mjpeg", rate=1)
        sleeve.width, sleeve.height, sleeve.pix_fmt = 16, 16, "yuvj420p"
        sleeve.disposition = av.stream.Disposition.attached_pic
        container.mux(sleeve.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")))
        container.mux(sleeve.encode(None))
        for start in range(0, 12000, 800):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), start
            container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    with pytest.raises(DataError, match="the clip has no video"):
        read_clip(path, FORMAT)
