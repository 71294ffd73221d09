"""Data modules of clips: timing of video and audio, splits, and unreadable files."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from perceiver_plugins.multimodal.data import SyntheticClipsDataModule, VideoFolderDataModule, read_clip, write_clip
from perceiver_plugins.multimodal.data.files import _resize
from perceiver_plugins.multimodal.data.format import Clip, ClipFormat, from_batch, to_batch
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry import UserError

SMALL = ClipFormat(num_frames=4, frame_size=(8, 12), frame_rate=4, samples_per_frame=2000)


def counting_clip(clip_format: ClipFormat) -> Clip:
    """Create a clip whose frame i has brightness 4 i and whose audio rises from -1 to 1."""
    frames = (4 * torch.arange(clip_format.num_frames, dtype=torch.uint8))[:, None, None, None]
    samples = torch.linspace(-1, 1, clip_format.num_samples)
    return Clip(frames.expand(-1, 3, *clip_format.frame_size).contiguous(), samples)


# Files


def test_lossless_round_trip(tmp_path):
    torch.manual_seed(0)
    clip = Clip(torch.randint(256, (4, 3, 8, 12), dtype=torch.uint8), 2 * torch.rand(8000) - 1)
    write_clip(tmp_path / "a.mkv", clip, SMALL, lossless=True)
    found = read_clip(tmp_path / "a.mkv", SMALL)
    assert torch.equal(found.frames, clip.frames)
    torch.testing.assert_close(found.samples, clip.samples, rtol=0, atol=1e-4)


def test_mp4_round_trip_is_approximate(tmp_path):
    data = SyntheticClipsDataModule(num_clips=1, num_frames=4, frame_size=(8, 12), frame_rate=4, samples_per_frame=2000)
    clip = data.splits.clips["train"].read(0, 0.5)
    write_clip(tmp_path / "a.mp4", clip, SMALL)
    found = read_clip(tmp_path / "a.mp4", SMALL)
    assert found.frames.shape == clip.frames.shape
    assert (found.frames.float() - clip.frames.float()).abs().mean() < 10
    assert (found.samples - clip.samples).abs().mean() < 0.05 * clip.samples.abs().mean()


def test_frames_with_odd_sides_are_written(tmp_path):
    odd = ClipFormat(num_frames=3, frame_size=(7, 9), frame_rate=5, samples_per_frame=1600)
    write_clip(tmp_path / "a.mp4", counting_clip(odd), odd)
    assert read_clip(tmp_path / "a.mp4", odd).frames.shape == (3, 3, 7, 9)


@pytest.mark.parametrize(("suffix", "offset"), [(".mkv", 0.0), (".mp4", 0.37), (".mkv", 0.5), (".mp4", 1.0)])
def test_video_and_audio_are_synchronous(tmp_path, suffix, offset):
    whole = ClipFormat(num_frames=50, frame_size=(16, 16), frame_rate=25, samples_per_frame=320)
    time = torch.arange(whole.num_samples) / 8000
    chirp = 0.8 * torch.sin(2 * torch.pi * (200 * time + 300 * time**2))  # each time has its own frequency
    clip = counting_clip(whole)._replace(samples=chirp)
    write_clip(tmp_path / f"a{suffix}", clip, whole, lossless=suffix == ".mkv")
    part = ClipFormat(num_frames=8, frame_size=(16, 16), frame_rate=25, samples_per_frame=320)
    found = read_clip(tmp_path / f"a{suffix}", part, offset)
    first = offset * 42  # in frames
    shown = found.frames.float().mean(dim=(1, 2, 3)) / 4
    torch.testing.assert_close(shown, torch.floor(first + 0.5 + torch.arange(8.0)), rtol=0, atol=0.4)
    heard = chirp[round(320 * first) :][: len(found.samples)]
    assert torch.corrcoef(torch.stack([found.samples, heard]))[0, 1] > 0.97
    assert torch.corrcoef(torch.stack([found.samples[5:], heard[:-5]]))[0, 1] < 0.9


def test_frames_and_audio_are_resampled(tmp_path):
    whole = ClipFormat(num_frames=50, frame_size=(16, 16), frame_rate=25, samples_per_frame=320)
    write_clip(tmp_path / "a.mkv", counting_clip(whole), whole, lossless=True)
    slow = ClipFormat(num_frames=10, frame_size=(16, 16), frame_rate=5, samples_per_frame=800)
    clip = read_clip(tmp_path / "a.mkv", slow)
    # Every fifth frame: the one in the middle of each fifth of a second.
    assert (clip.frames.float().mean(dim=(1, 2, 3)) / 4).tolist() == [2 + 5 * i for i in range(10)]
    torch.testing.assert_close(clip.samples[50:-50], torch.linspace(-1, 1, 8000)[50:-50], rtol=0, atol=0.01)


def test_frames_are_cropped_to_the_centre_and_rotated(tmp_path):
    wide = ClipFormat(num_frames=1, frame_size=(10, 30), frame_rate=1, samples_per_frame=8000)
    frames = torch.zeros(1, 3, 10, 30, dtype=torch.uint8)
    frames[..., 10:20] = 200
    write_clip(tmp_path / "a.mkv", Clip(frames, torch.zeros(8000)), wide, lossless=True)
    square = ClipFormat(num_frames=1, frame_size=(5, 5), frame_rate=1, samples_per_frame=8000)
    assert (read_clip(tmp_path / "a.mkv", square).frames.float() > 180).all()

    image = np.zeros((6, 4, 3), dtype=np.uint8)
    image[:3, :2] = 255

    class Turned:
        """Frame of a phone held upright."""

        height, width, rotation = 6, 4, -90

        def reformat(self, **options):
            return av.VideoFrame.from_ndarray(image, format="rgb24").reformat(**options)

    upright = _resize(Turned(), (4, 6))
    assert np.array_equal(upright, np.rot90(image, -1))  # clockwise


def test_audio_that_ends_early_is_padded_with_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        video = container.add_stream("ffv1", rate=4)
        video.height, video.width, video.pix_fmt = 8, 12, "bgr0"
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(np.zeros((8, 12, 3), dtype=np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(np.full((1, 3000), 2**14, dtype=np.int16), format="s16", layout="mono")
        samples.sample_rate = 8000
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    heard = read_clip(tmp_path / "a.mkv", SMALL).samples
    torch.testing.assert_close(heard[:3000], torch.full((3000,), 0.5))
    assert not heard[3000:].any()


@pytest.fixture
def silent_file(tmp_path) -> Path:
    """Video without audio."""
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=4)
        video.height, video.width, video.pix_fmt = 8, 12, "yuv420p"
        for _ in range(8):
            frame = av.VideoFrame.from_ndarray(np.zeros((8, 12, 3), dtype=np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    return path


@pytest.fixture
def bad_files(tmp_path, silent_file) -> dict[str, Path]:
    """Unreadable files by error message."""
    good, short, noise, empty = (tmp_path / name for name in ("good.mp4", "short.mp4", "noise.mp4", "empty.mkv"))
    write_clip(good, counting_clip(SMALL), SMALL)
    half = ClipFormat(num_frames=2, frame_size=(8, 12), frame_rate=4, samples_per_frame=2000)
    write_clip(short, counting_clip(half), half)
    noise.write_bytes(os.urandom(4000))
    empty.write_bytes(b"")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    return {
        "the clip has no audio": silent_file,
        r"too short: 0.50 seconds, 1.00 are needed \(4 frames, 4 a second\)": short,
        "the clip cannot be read": noise,
        "cannot be read": empty,
        r"the clip cannot be read \(Invalid data": cut,
        "no such file": tmp_path / "none.mp4",
    }


def test_unreadable_files_are_reported_in_one_line(bad_files):
    for message, path in bad_files.items():
        with pytest.raises(DataError, match=message) as caught:
            read_clip(path, SMALL)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


# Batches


def test_batch_values_are_scaled():
    clips = [counting_clip(SMALL), Clip(torch.full((4, 3, 8, 12), 255, dtype=torch.uint8), torch.zeros(8000))]
    batch = to_batch(clips)
    assert batch["pixel_values_videos"].shape == (2, 4, 3, 8, 12)
    assert (batch["pixel_values_videos"].min(), batch["pixel_values_videos"].max()) == (0, 1)
    for clip, back in zip(clips, from_batch(batch["pixel_values_videos"], batch["input_values"]), strict=True):
        assert torch.equal(clip.frames, back.frames)
        assert torch.equal(clip.samples, back.samples)
    (beyond,) = from_batch(torch.full((1, 4, 3, 8, 12), 1.7), torch.full((1, 8000), -3.0))
    assert beyond.frames.unique().tolist() == [255]
    assert beyond.samples.unique().tolist() == [-1]


# Synthetic clips


def test_synthetic_clips_are_reproducible_and_match_their_class():
    one, other = (SyntheticClipsDataModule(num_clips=16, seed=seed) for seed in (1, 2))
    assert one.label_names == ["circle", "cross", "diamond", "square"]
    assert (one.num_frames, one.frame_size, one.num_audio_samples, one.num_classes) == (8, (32, 32), 1024, 4)
    assert one.class_counts == [4] * 4
    clips = one.splits.clips
    assert {split: len(files) for split, files in clips.items()} == {"train": 16, "validation": 2, "test": 2}
    for index in range(4):
        clip, again = (data.splits.clips["train"].read(index, 0.5) for data in (one, other))
        assert torch.equal(clip.frames, again.frames)
        assert torch.equal(clip.samples, again.samples)
        spectrum = torch.fft.rfft(clip.samples).abs()
        pitch = 64 * 2 ** (clips["train"].labels[index].item() * 4 / 12)  # in cycles per clip
        assert abs(spectrum.argmax().item() - pitch) < 1
        assert (clip.frames[0] != clip.frames[-1]).any()  # it moves
    assert not torch.equal(clips["train"].read(0, 0).frames, clips["validation"].read(0, 0).frames)


# Folders


def test_class_folders(clip_folder):
    path = clip_folder({"square": 4, "circle": 3, "cross": 1}, SMALL)
    (path / "circle" / ".hidden.mp4").write_bytes(b"")
    (path / "circle" / "notes.txt").write_text("no video")
    (path / "circle" / "more").mkdir()
    (path / "circle" / "0.mp4").rename(path / "circle" / "more" / "0.MP4")
    data = VideoFolderDataModule(
        str(path), num_frames=2, frame_size=4, frame_rate=4, samples_per_frame=1000, batch_size=2, val_fraction=0.3
    )
    assert data.label_names == ["circle", "cross", "square"]
    assert (data.num_frames, data.frame_size, data.num_audio_samples, data.num_classes) == (2, (4, 4), 2000, 3)
    counts = {split: Counter(files.labels.tolist()) for split, files in data.splits.clips.items()}
    assert counts == {"train": {0: 2, 1: 1, 2: 3}, "validation": {0: 1, 2: 1}}
    data.setup()
    batches = [*data.train_dataloader()]
    assert [len(batch["labels"]) for batch in batches] == [2, 2, 2]
    assert batches[0]["pixel_values_videos"].shape == (2, 2, 3, 4, 4)
    assert batches[0]["input_values"].shape == (2, 2000)
    size = {"num_frames": 2, "frame_size": [4, 4], "frame_rate": 4, "samples_per_frame": 1000}
    audio = {"sample_rate": 4000, "max_seconds": 0.5, "min_seconds": 0.5}
    assert data.description() == {**size, "streams": ["video", "audio"], **audio}
    assert ClipFormat.from_description(data.description()) == data.clip_format
    with pytest.raises(DataError, match="no test data: no folder 'test'"):
        data.test_dataloader()


def test_training_reads_random_parts_and_evaluation_the_middle(tmp_path):
    whole = ClipFormat(num_frames=40, frame_size=(8, 8), frame_rate=20, samples_per_frame=400)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            write_clip(tmp_path / name / f"{i}.mkv", counting_clip(whole), whole, lossless=True)
    options = {"num_frames": 3, "frame_size": 8, "frame_rate": 20, "samples_per_frame": 400}

    def firsts(key: tuple[int, int] | int, seed: int = 0, split: str = "train") -> float:
        data = VideoFolderDataModule(str(tmp_path), **options, seed=seed)
        data.setup()
        frames = data.split_datasets[split][key]["pixel_values_videos"]
        return 255 * frames[0].mean().item() / 4

    drawn = [firsts((epoch, index)) for epoch in range(3) for index in range(2)]
    assert len(set(drawn)) > 2
    assert drawn[3] == firsts((1, 1))
    assert firsts((0, 0), seed=1) != drawn[0]
    assert firsts(0, split="validation") == firsts(1, split="validation") == pytest.approx(19)


def test_index_beyond_the_end_has_no_label():
    data = SyntheticClipsDataModule(num_clips=3)
    data.setup()
    example = data.split_datasets["validation"][5]
    assert example["labels"] == -100
    assert example["pixel_values_videos"].shape == (8, 3, 32, 32)


def test_split_folders(clip_folder, tmp_path):
    options = {"num_frames": 4, "frame_size": 8, "frame_rate": 4, "samples_per_frame": 1000}
    for split, classes in {"train": {"circle": 2, "cross": 2}, "Valid": {"cross": 1}, "test": {"circle": 1}}.items():
        path = clip_folder(classes, SMALL, tmp_path / "splits" / split).parent
    data = VideoFolderDataModule(str(path), **options)
    assert {split: files.labels.tolist() for split, files in data.splits.clips.items()} == {
        "train": [0, 0, 1, 1],
        "validation": [1],
        "test": [0],
    }
    (path / "test" / "circle").rename(path / "test" / "circel")
    with pytest.raises(DataError, match=r"test/circel: not a class of .*train .did you mean 'circle'"):
        VideoFolderDataModule(str(path), **options).load()


def test_unreadable_files_are_an_error_or_skipped(clip_folder, silent_file, caplog):
    path = clip_folder({"circle": 3, "cross": 3}, SMALL)
    silent_file.rename(path / "cross" / "silent.mp4")
    options = {"num_frames": 4, "frame_size": 8, "frame_rate": 4, "samples_per_frame": 1000, "batch_size": 1}
    data = VideoFolderDataModule(str(path), **options)
    data.setup()
    with pytest.raises(DataError, match=r"silent.mp4: the clip has no audio; skip_unreadable=true skips such clips"):
        [*data.train_dataloader(), *data.val_dataloader()]
    with caplog.at_level("INFO"):
        data = VideoFolderDataModule(str(path), **options, skip_unreadable=True)
        data.setup()
    assert len([*data.train_dataloader(), *data.val_dataloader()]) == 6
    assert "skipped 1 of 7 clips: " in caplog.text
    assert "silent.mp4: the clip has no audio" in caplog.text


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({}, "no clips found (.mp4, "),
        ({"circle": 1}, "a single folder of a class, 'circle' (at least two are needed)"),
        ({"circle": 1, "cross": 0}, "cross: no clips in the folder of this class"),
    ],
)
def test_invalid_class_folders_are_reported(clip_folder, tmp_path, classes, message):
    (tmp_path / "clips").mkdir()
    with pytest.raises(DataError) as caught:
        VideoFolderDataModule(str(clip_folder(classes, SMALL))).load()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "clisp"}, r"folder .*clisp not found .did you mean 'clips'"),
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"frame_size": (8, 0)}, r"frame_size=\(8, 0\) must be a height and a width"),
        ({"val_fraction": 1.0}, "val_fraction=1.0 must be more than 0 and less than 1"),
        ({"test_fraction": 0.95}, "test_fraction=0.95 must be at least 0, and its sum with val_fraction less than 1"),
    ],
)
def test_invalid_options_are_reported(tmp_path, options, message):
    (tmp_path / "clips").mkdir()
    options = {"path": "clips"} | options
    with pytest.raises(UserError, match=message):
        VideoFolderDataModule(**(options | {"path": str(tmp_path / options["path"])}))
