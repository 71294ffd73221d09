"""Data modules of recordings: folders, archives, formats, augmentation and unreadable files."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_plugins.audio import AudioFolderDataModule, TonePatternsDataModule
from perceiver_plugins.audio.data import folders
from perceiver_plugins.audio.data.format import AudioFormat, Augmentation
from perceiver_plugins.audio.data.tones import PATTERNS, synthesise
from perceiver_plugins.sdk.data.sound import write_wav
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry import UserError

LENGTHS = {"low": (800, 900, 1000, 1100), "high": (400, 500, 600, 20000)}


def write_folder(folder: Path) -> Path:
    """Write four recordings of each class at 8 kHz, one of them 2.5 seconds long."""
    for label, lengths in LENGTHS.items():
        (folder / label).mkdir(parents=True)
        for length in lengths:
            write_wav(folder / label / f"{length}.wav", samples_of(length), 8000)
    return folder


def samples_of(length: int) -> np.ndarray:
    return np.linspace(-0.5, 0.5, length)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "sounds")


@pytest.mark.parametrize("archived", [False, True])
def test_batches_have_the_recordings_with_padding(folder, archived, tmp_path):
    path = folder
    if archived:
        path = tmp_path / "sounds.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in folder.rglob("*.wav"):
                archive.write(file, file.relative_to(tmp_path))
    data = AudioFolderDataModule(str(path), val_fraction=0.25, batch_size=6)
    assert data.label_names == ["high", "low"]
    assert (data.sample_rate, data.max_seconds, data.num_audio_samples) == (8000, 2.5, 20000)
    data.setup()
    (batch,) = data.train_dataloader()
    lengths = batch["attention_mask"].sum(dim=1)
    for samples, length, label in zip(batch["input_values"], lengths.tolist(), batch["labels"], strict=True):
        assert length in LENGTHS[data.label_names[label]]
        np.testing.assert_allclose(samples[:length], samples_of(length), atol=1e-4)
        assert not samples[length:].any()
    (valid,) = data.val_dataloader()
    assert Counter(valid["labels"].tolist()) == {0: 1, 1: 1}
    assert data.description() == {"sample_rate": 8000, "max_seconds": 2.5, "min_seconds": 0.0}


def test_split_folders(folder, tmp_path):
    for split in ("train", "val", "test"):
        write_folder(tmp_path / "splits" / split)
    data = AudioFolderDataModule(str(tmp_path / "splits"))
    assert {split: len(each) for split, each in data.splits.recordings.items()} == {
        "train": 8,
        "validation": 8,
        "test": 8,
    }
    with pytest.raises(DataError, match="no test data: no folder 'test'"):
        AudioFolderDataModule(str(folder)).test_dataloader()


def test_long_recordings_are_cut_and_counted(folder, monkeypatch):
    notes: list[str] = []
    monkeypatch.setattr(folders, "rank_zero_info", notes.append)
    data = AudioFolderDataModule(str(folder), max_seconds=0.1, val_fraction=0.25)
    data.setup()
    assert [note.split(": ", 1)[1] for note in notes] == [
        "1 of 8 recordings are longer than max_seconds=0.1: training reads a random part of each, evaluation the middle"
    ]
    dataset = data.examples("train")
    seconds = [file.header.seconds for file in dataset.recordings.files]
    longest = seconds.index(max(seconds))
    middle = dataset[longest]["input_values"]
    assert len(middle) == 800
    np.testing.assert_allclose(middle, samples_of(20000)[9600:10400], atol=1e-3)
    parts = [dataset[epoch, longest]["input_values"] for epoch in (0, 1, 0)]
    assert torch.equal(parts[0], parts[2])
    assert not torch.equal(parts[0], parts[1])


def test_kept_recordings_are_those_of_the_files(folder, monkeypatch):
    kept = AudioFolderDataModule(str(folder), val_fraction=0.25)
    kept.setup()
    monkeypatch.setattr(folders, "MAX_CACHED_SAMPLES", 0)
    read = AudioFolderDataModule(str(folder), val_fraction=0.25)
    read.setup()
    for index in range(len(kept.examples("train"))):
        assert kept.examples("train").recordings.files[index].decoded is not None
        assert read.examples("train").recordings.files[index].decoded is None
        assert torch.equal(kept.examples("train")[index]["input_values"], read.examples("train")[index]["input_values"])


def test_unreadable_files_are_named_or_left_out(folder, monkeypatch):
    notes = []
    monkeypatch.setattr("perceiver_plugins.sdk.data.file_trees.rank_zero_info", notes.append)
    (folder / "low" / "broken.mp3").write_text("no sound")
    write_wav(folder / "high" / "empty.wav", np.zeros(0), 8000)
    cut = folder / "high" / "cut.wav"
    write_wav(cut, samples_of(8000), 8000)
    cut.write_bytes(cut.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"broken\.mp3: the recording cannot be read .*; skip_unreadable=true leaves"):
        AudioFolderDataModule(str(folder)).setup()
    (folder / "low" / "broken.mp3").unlink()
    with pytest.raises(DataError, match=r"high/(cut\.wav: the recording is truncated|empty\.wav: the recording is)"):
        AudioFolderDataModule(str(folder)).setup()
    (folder / "low" / "broken.mp3").write_text("no sound")
    data = AudioFolderDataModule(str(folder), skip_unreadable=True)
    data.setup()
    assert sum(map(len, data.splits.recordings.values())) == 8
    assert [note.split(" left out")[0].split(": ")[1] for note in notes] == ["1 of 11 recordings", "2 of 10 recordings"]


def test_a_model_determines_the_format_of_its_evaluation(folder, tmp_path):
    (tmp_path / "new").mkdir()
    folder.rename(tmp_path / "new" / "test")
    data = AudioFolderDataModule(str(tmp_path / "new"))
    data.known = {"label_names": ["high", "low", "noise"], "sample_rate": 4000, "max_seconds": 0.05}
    data.setup("test")
    assert (data.label_names[2], data.sample_rate) == ("noise", 4000)
    (batch,) = data.test_dataloader()
    assert batch["input_values"].shape == (8, 200)


def test_augmentation():
    rng = np.random.default_rng(0)
    ramp = np.arange(1, 101, dtype=np.float32)
    for _ in range(50):
        shifted = Augmentation(random_shift=20)(ramp, rng)
        silence = int(np.argmax(shifted > 0))
        assert silence == 0 or shifted[silence] == 1
        assert shifted[-1] == 100
        assert 80 <= len(shifted) <= 120
    assert len(Augmentation(random_shift=1000)(ramp, rng)) >= 50
    lengths = {len(Augmentation(random_speed=0.2)(ramp, rng)) for _ in range(50)}
    assert min(lengths) >= 83
    assert max(lengths) <= 126
    assert len(lengths) > 5
    tone = np.sin(np.arange(100_000, dtype=np.float32))
    for _ in range(10):
        noise = Augmentation(noise_snr=10)(tone, rng) - tone
        assert 10 <= 20 * np.log10(tone.std() / noise.std()) <= 40.1
    assert Augmentation()(ramp, rng) is ramp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, "sample_rate=0 must be at least 1"),
        ({"max_seconds": 0}, "max_seconds=0 must be more than 0"),
        ({"random_shift_ms": -1}, "random_shift_ms=-1 must be at least 0"),
        ({"random_speed": 1.0}, "random_speed=1.0 must be at least 0 and less than 1"),
        ({"num_recordings": 0}, "num_recordings=0 must be at least 1"),
    ],
)
def test_invalid_options_are_reported(options, message):
    with pytest.raises(UserError, match=message):
        TonePatternsDataModule(**options)


def test_tones_follow_their_pattern():
    rate = 8000
    for pattern, pitch in PATTERNS.items():
        samples = synthesise(pattern, rate, np.random.default_rng(3))
        frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::40] * np.hanning(400)
        loudest = np.abs(np.fft.rfft(frames, 8000)).argmax(axis=1)  # hertz
        expected = pitch((np.arange(len(frames)) * 40 + 200) / len(samples))
        if pattern == "steady":
            assert loudest.std() < 20
        else:
            assert np.corrcoef(loudest, expected)[0, 1] > 0.9


def test_tones_are_repeatable_and_balanced():
    data = TonePatternsDataModule(num_recordings=12)
    data.setup()
    assert data.audio_format == AudioFormat(4000, 1.0)
    assert data.class_counts == [2] * 6
    train, again = data.examples("train"), TonePatternsDataModule(num_recordings=12).splits.recordings["train"]
    assert np.array_equal(train[3]["input_values"], again.read(3, data.audio_format, 0.5))
    assert not torch.equal(train[3]["input_values"][:100], data.examples("test")[3 - 1]["input_values"][:100])
