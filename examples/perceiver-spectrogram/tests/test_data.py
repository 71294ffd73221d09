"""Reading, splitting and augmentation of recordings."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from conftest import write_wav
from perceiver_registry import UserError

from perceiver_spectrogram.clips import decode
from perceiver_spectrogram.data import SpokenDigitsDataModule


def test_splits_are_disjoint_and_by_take(tones):
    data = SpokenDigitsDataModule(str(tones))
    data.setup()
    splits = {
        split: [examples[index] for index in range(len(examples))]
        for split, examples in data.split_datasets.items()
    }
    sizes = {split: len(examples) for split, examples in splits.items()}
    assert sizes == {"train": 24, "validation": 6, "test": 10}
    examples = [example for split in splits.values() for example in split]
    clips = [tuple(example["input_values"].tolist()) for example in examples]
    assert len(set(clips)) == 40
    assert data.label_names == ["high", "low"]
    assert [int(example["labels"]) for example in splits["validation"]] == [0, 0, 0, 1, 1, 1]
    assert data.class_counts == [12, 12]


def test_zip_archive_equals_its_folder(tones, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "tones"), "zip", tones)
    in_folder, in_archive = (SpokenDigitsDataModule(str(path)).clips for path in (tones, archive))
    for split, clips in in_folder.items():
        assert [word for _, word in clips] == [word for _, word in in_archive[split]]
        for (samples, _), (expected, _) in zip(in_archive[split], clips, strict=True):
            assert torch.equal(samples, expected)


def test_decode_averages_channels(tmp_path):
    sound = np.array([[0.0, 0.5], [-1.0, 0.0], [0.25, 0.25]])
    write_wav(tmp_path / "a.wav", sound)
    samples = decode((tmp_path / "a.wav").read_bytes(), "a.wav", 8000)
    assert samples.tolist() == [0.25, -0.5, 0.25]


def test_delay_is_silence_and_reproducible(tones):
    data = SpokenDigitsDataModule(str(tones), max_delay_ms=100, seed=3)
    data.setup()
    train = data.split_datasets["train"]
    clip = train[5]["input_values"]
    delays = [len(train[epoch, 5]["input_values"]) - len(clip) for epoch in range(20)]
    assert delays == [len(train[epoch, 5]["input_values"]) - len(clip) for epoch in range(20)]
    assert 0 <= min(delays) < max(delays) <= 800
    assert torch.equal(train[0, 5]["input_values"], torch.cat([torch.zeros(delays[0]), clip]))


def wrong_rate(folder):
    write_wav(folder / "1_a_7.wav", np.zeros(9), rate=44100)


def wrong_width(folder):
    write_wav(folder / "1_a_7.wav", np.zeros(9), width=1)


def no_sound(folder):
    write_wav(folder / "1_a_7.wav", np.zeros(0))


def no_wav(folder):
    (folder / "1_a_7.wav").write_text("no sound at all")


def cut_off(folder):
    (folder / "1_a_7.wav").write_bytes(b"RIFF")


def half_written(folder):
    write_wav(folder / "1_a_7.wav", np.zeros(9))
    (folder / "1_a_7.wav").write_bytes((folder / "1_a_7.wav").read_bytes()[:-3])


def wrong_name(folder):
    write_wav(folder / "seven.wav", np.zeros(9))


def nothing(folder):
    pass


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_rate, "1_a_7.wav: must have 16 bits, 8000 Hz, got 16 bits, 44100 Hz"),
        (wrong_width, "1_a_7.wav: must have 16 bits, 8000 Hz, got 8 bits, 8000 Hz"),
        (no_sound, "1_a_7.wav: has no samples"),
        (half_written, "1_a_7.wav: .*ends too early"),
        (no_wav, "1_a_7.wav: not a .wav file"),
        (cut_off, "1_a_7.wav: not a .wav file .it ends too early"),
        (wrong_name, "seven.wav: must have a name like 7_jackson_32.wav"),
        (nothing, "no recordings"),
    ],
)
def test_invalid_recordings_are_reported(spoil, message, tmp_path):
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        _ = SpokenDigitsDataModule(str(tmp_path)).clips


def test_invalid_paths_are_reported(tmp_path):
    (tmp_path / "notes.txt").touch()
    for name, message in (
        ("notes.txt", "notes.txt: neither a folder nor a zip archive"),
        ("missing", "path: folder or archive .*missing not found"),
    ):
        with pytest.raises(UserError, match=message):
            _ = SpokenDigitsDataModule(str(tmp_path / name)).clips


def test_empty_archives_are_reported(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(UserError, match="no recordings"):
        _ = SpokenDigitsDataModule(str(tmp_path / "empty.zip")).clips
