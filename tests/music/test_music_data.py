"""Data modules of music: files, splits, reports, windows and transposition."""

from __future__ import annotations

import warnings
import zipfile
from itertools import chain

import midi_writing as midi
import numpy as np
import pytest
import torch
from sample_data import sample_data

from perceiver_plugins.music.data import MidiFilesDataModule, RoundsDataModule
from perceiver_plugins.music.events import EventTokenizer
from perceiver_plugins.music.midi_files import MAX_SIZE, write_midi
from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.tokens import default_tokenizer
from perceiver_plugins.sdk.data.causal import WindowRule
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

TOKENIZER = default_tokenizer()

NOTE_ON = TOKENIZER.names.index("NoteOn_0")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))


def song(number: int) -> bytes:
    """File with eight notes that begin with the pitch ``number``."""
    pitches = [number, 60, 62, 64, 65, 67, 69, 71]
    return midi.file(
        midi.track(*(event for pitch in pitches for event in ((0, midi.on(pitch)), (96, midi.off(pitch)))))
    )


def make_songs(folder, count: int = 10) -> None:
    for number in range(count):
        path = folder / f"{number % 3}" / f"song {number}{['.mid', '.MIDI'][number % 2]}"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(song(number))


def pieces(module: MidiFilesDataModule, split: str) -> list[int]:
    """First pitch of each piece of a split."""
    ids = module.split_datasets[split].sequence.input_ids
    return sorted(int(token) - NOTE_ON for token in ids[np.flatnonzero(ids == TOKENIZER.bos) + 2])  # after the program


def load(path, **options) -> MidiFilesDataModule:
    module = MidiFilesDataModule(str(path), **{"max_seq_len": 16, "batch_size": 2, **options})
    module.prepare_data()
    module.setup("fit")
    return module


def test_each_file_is_in_one_split(tmp_path):
    make_songs(tmp_path / "songs")
    module = load(tmp_path / "songs", val_fraction=0.2, test_fraction=0.3)
    found = {split: pieces(module, split) for split in ("train", "validation", "test")}
    assert {split: len(each) for split, each in found.items()} == {"train": 5, "validation": 2, "test": 3}
    assert sorted(chain.from_iterable(found.values())) == list(range(10))
    again = load(tmp_path / "songs", val_fraction=0.2, test_fraction=0.3, seed=1)
    assert {split: pieces(again, split) for split in found} == found


def test_archives_have_the_same_pieces_as_folders(tmp_path):
    make_songs(tmp_path / "songs")
    with zipfile.ZipFile(tmp_path / "songs.zip", "w") as archive:
        for path in sorted((tmp_path / "songs").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path / "songs"))
    folder, packed = load(tmp_path / "songs"), load(tmp_path / "songs.zip")
    for split in ("train", "validation"):
        expected = folder.split_datasets[split].sequence
        sequence = packed.split_datasets[split].sequence
        assert (sequence.input_ids == expected.input_ids).all()
        assert (sequence.num_units == expected.num_units).all()


def test_folders_named_by_splits(tmp_path):
    for name, numbers in {"data/Train": (1, 2), "data/valid/a": (3,), "data/test": (4,), "other": (5,)}.items():
        (tmp_path / "songs" / name).mkdir(parents=True)
        for number in numbers:
            (tmp_path / "songs" / name / f"{number}.mid").write_bytes(song(number))
    module = load(tmp_path / "songs")
    assert [pieces(module, split) for split in ("train", "validation", "test")] == [[1, 2], [3], [4]]


def test_sequence_has_bounds_and_counts_notes(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a.mid").write_bytes(song(1))
    (tmp_path / "train" / "b.mid").write_bytes(song(2))
    sequence = load(tmp_path).split_datasets["train"].sequence
    ids = sequence.input_ids.astype(int)
    assert sequence.begin_id == TOKENIZER.bos
    bounds = np.flatnonzero(np.isin(ids, [TOKENIZER.bos, TOKENIZER.eos]))
    assert ids[bounds].tolist() == [TOKENIZER.bos, TOKENIZER.eos] * 2
    assert (sequence.num_units.sum(), sequence.num_units[bounds].sum()) == (16, 0)
    assert bounds[[0, -1]].tolist() == [0, len(ids) - 1]
    for begin, end, first in zip(bounds[::2], bounds[1::2], (1, 2), strict=True):
        notes = TOKENIZER.decode(ids[begin : end + 1])
        assert (notes.pitches.tolist()[0], notes.size) == (first, 8)


def test_events_of_a_model_are_inherited(tmp_path):
    events = EventTokenizer()
    (tmp_path / "train").mkdir()
    pedals = [(0, b"\xb0\x40\x7f"), (0, midi.on(60)), (96, midi.off(60)), (96, midi.on(60)), (96, midi.off(60))]
    (tmp_path / "train" / "a.mid").write_bytes(midi.file(midi.track(*pedals, (96, b"\xb0\x40\x00")), division=96))
    (tmp_path / "train" / "b.mid").write_bytes(song(5))
    module = MidiFilesDataModule(str(tmp_path), max_seq_len=16, batch_size=2, transpose=5)
    module.inherited = {"tokenizer": events.description()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no pedal is left out
        module.setup("fit")
    assert (module.vocab_size, module.description()["tokenizer"]) == (389, events.description())
    sequence = module.split_datasets["train"].sequence
    ids = sequence.input_ids.astype(int)
    first, second = (part for part in np.split(ids, np.flatnonzero(ids == events.pad)) if len(part) > 1)
    assert [events.names[token] for token in first[1:]] == [
        *("Velocity_64", "NoteOn_60", "TimeShift_100", "NoteOff_60"),
        *("Velocity_64", "NoteOn_60", "TimeShift_100", "NoteOff_60"),
    ]
    assert events.decode(second).pitches.tolist()[0] == 5
    assert sequence.num_units.sum() == 10
    indices = np.arange(len(ids))[None]
    _, labels, _ = sequence.example(indices, len(ids) - 1)
    assert (labels[ids[None, 1:] == events.pad] == IGNORED).all()
    assert (labels[ids[None, 1:] != events.pad] >= 0).all()


def reports(path, **options) -> list[str]:
    """Warnings about the files."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(path, **options)
    lines = [str(warning.message) for warning in caught]
    return [line.removeprefix(f"{path}: ") for line in lines if line.startswith(str(path))]


def test_changes_are_reported_with_a_file(tmp_path):
    songs = tmp_path / "songs"
    make_songs(songs, 4)
    overlapping = midi.track(
        *((0, midi.on(60)), (9, midi.on(60)), (9, midi.off(60)), (9, midi.off(60))),
        (0, b"\xb0\x40\x7f"),
        (9, b"\xb0\x40\x00"),
    )
    (songs / "x.mid").write_bytes(midi.file(overlapping, midi.track((0, midi.on(9, channel=9)), (9, midi.off(9, 9)))))
    (songs / "y.mid").write_bytes(midi.file(overlapping, midi.track((5, midi.on(2)), (5, midi.off(2)))))
    (songs / "empty.mid").write_bytes(midi.file(midi.track()))
    (songs / "copy.mid").write_bytes(song(0))
    expected = [
        f"1 pieces left out because they are equal to another (files: 1, first: {songs}/copy.mid)",
        f"1 pieces without notes left out (files: 1, first: {songs}/empty.mid)",
        f"1 percussion notes left out (no token for their sounds) (files: 1, first: {songs}/x.mid)",
        f"2 notes shortened because the same key is struck again (files: 2, first: {songs}/x.mid)",
        f"2 pedal events left out (notes end when their keys are released) (files: 2, first: {songs}/x.mid)",
    ]
    for _ in range(2):  # the second time from the cache
        assert sorted(reports(songs)) == sorted(expected)


def test_files_that_cannot_be_read_are_left_out_and_named(tmp_path):
    songs = tmp_path / "songs"
    make_songs(songs)
    (songs / "a.mid").write_bytes(b"<html>")
    (songs / "b.mid").write_bytes(song(1)[:-9])
    (songs / "c.mid").write_bytes(b"")
    (songs / "d.mid").write_bytes(bytes(MAX_SIZE + 1))
    (songs / "e.mid").symlink_to("missing")
    (songs / "f.mid").write_bytes(midi.file(midi.track((2**28 - 1, midi.on(60)), (1, midi.off(60))), division=1))
    for _ in range(2):  # the second time from the cache
        (line,) = reports(songs)
        assert line.startswith("6 files left out because they cannot be read: ")
        problems = line.partition("read: ")[2].split("; ")
        assert problems[0] == f"{songs}/a.mid: not a valid MIDI file (it does not begin with MThd)"
        assert problems[1].startswith(f"{songs}/b.mid: not a valid MIDI file (Invalid chunk length")
        assert problems[3] == f"{songs}/d.mid: 16,777,217 bytes are above the limit of 16,777,216"
        assert problems[4] == f"{songs}/e.mid: cannot be read (No such file or directory)"
        assert problems[5:] == ["..."]
    module = load(songs)
    assert len(pieces(module, "train") + pieces(module, "validation")) == 10


def test_a_folder_without_a_readable_file_has_no_training_data(tmp_path):
    (tmp_path / "a.mid").write_bytes(b"<html>")
    module = load(tmp_path)
    with pytest.raises(DataError, match=r"^no pieces with notes for training$"):
        module.train_dataloader()


def test_hostile_archives(tmp_path):
    path = tmp_path / "songs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"a/{number}.mid", song(number))
        archive.writestr("/etc/3.mid", song(3))
        archive.writestr("../../4.mid", song(4))  # ignored, as are hidden files
        archive.writestr("__MACOSX/._5.mid", b"")
    module = load(path)
    assert sorted(pieces(module, "train") + pieces(module, "validation")) == [0, 1, 2, 3]
    assert {each.name for each in tmp_path.iterdir()} == {"songs.zip", "cache"}
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mid", bytes(2**25))
    bomb = f"{path}/bomb.mid: 33,554,432 bytes are above the limit of 16,777,216"
    assert reports(path) == [f"1 files left out because they cannot be read: {bomb}"]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"songs.zip: neither a folder nor a zip archive, or a damaged one$"):
        load(path)


def test_missing_data(tmp_path):
    with pytest.raises(DataError, match=r"^path: folder or archive .*none not found$"):
        load(tmp_path / "none")
    with pytest.raises(DataError, match=r": no MIDI files \(.mid, .midi\)$"):
        load(tmp_path)
    (tmp_path / "a.mid").write_bytes(song(1))
    module = load(tmp_path)
    with pytest.raises(DataError, match=r"^too few pieces to hold some out for validation$"):
        module.val_dataloader()
    with pytest.raises(DataError, match=r"^no test data \(set test_fraction"):
        module.test_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transpose": -1}, "transpose=-1 must be a number of semitones from 0 to 127"),
        ({"transpose": 128}, "transpose=128 must be a number of semitones from 0 to 127"),
        ({"max_seq_len": 0}, "max_seq_len=0 must be at least 1"),
        ({"val_fraction": 0}, "val_fraction=0 must be more than 0 and less than 1"),
        ({"test_fraction": 0.95}, "test_fraction=0.95 must be at least 0, and its sum with val_fraction less than 1"),
    ],
)
def test_invalid_options(tmp_path, options, message):
    with pytest.raises(UserError) as caught:
        MidiFilesDataModule(str(tmp_path), **options)
    assert str(caught.value) == message


def test_changed_files_are_read_again(tmp_path):
    make_songs(tmp_path / "songs")
    first = load(tmp_path / "songs")
    assert load(tmp_path / "songs").folder == first.folder
    (tmp_path / "songs" / "0" / "song 0.mid").write_bytes(song(77))
    changed = load(tmp_path / "songs")
    assert sorted(pieces(changed, "train") + pieces(changed, "validation")) == [*range(1, 10), 77]


def test_transposition_depends_on_seed_epoch_and_index_alone(tmp_path):
    module = RoundsDataModule(num_pieces=4, max_seq_len=100, transpose=6, seed=3)
    module.setup()
    module.fit_windows(WindowRule(100, 40, 20), 40)
    dataset = module.split_datasets["train"]
    plain = RoundsDataModule(num_pieces=4, max_seq_len=100, seed=3)
    plain.setup()
    plain.fit_windows(WindowRule(100, 40, 20), 40)
    indices = np.arange(len(dataset))
    shifts = set()
    for epoch in range(3):
        batch, original = dataset.batch(epoch, indices), plain.split_datasets["train"].batch(epoch, indices)
        alone = [dataset.batch(epoch, indices[index : index + 1]) for index in indices]
        for name in ("input_ids", "labels"):
            assert torch.equal(batch[name], torch.cat([each[name] for each in alone]))
            assert batch[name].shape == original[name].shape
            for row, before in zip(batch[name], original[name], strict=True):
                is_note = ((before >= 4) & (before < 260)).numpy()
                assert torch.equal(row[~is_note], before[~is_note])
                assert len(set((row - before)[is_note].tolist())) == 1
                shifts |= {(epoch, int((row - before)[is_note][0]))}
        targets = batch["labels"][:, :-1]
        assert torch.equal(torch.where(targets == -100, targets, batch["input_ids"][:, -39:]), targets)
    assert {shift for _, shift in shifts} == set(range(-6, 7))


def test_transposition_keeps_notes_within_the_range(tmp_path):
    for number, pitches in enumerate([(0, 1), (126, 127), (0, 127), (3, 120)]):
        rows = [(index / 10, index / 10 + 0.1, pitch, 64, False) for index, pitch in enumerate(pitches * 9)]
        drums = [(index, index + 0.5, 36, 64, True) for index in range(2)]
        write_midi(tmp_path / f"{number}.mid", Notes.from_rows(rows + drums))
    module = load(tmp_path, transpose=127, max_seq_len=50)
    module.fit_windows(WindowRule(50, 50, 25), 10)
    dataset, found = module.split_datasets["train"], set()
    original = dataset.sequence.input_ids
    allowed = {TOKENIZER.names[token] for token in original if not NOTE_ON <= token < NOTE_ON + 256}
    allowed |= {f"{kind}_{pitch}" for kind in ("NoteOn", "NoteOff") for pitch in range(128)}
    for epoch in range(30):
        ids = dataset.batch(epoch, np.arange(len(dataset)))["input_ids"].numpy()
        assert {TOKENIZER.names[token] for token in ids.ravel().tolist()} <= allowed
        found |= set(ids.ravel().tolist())
    assert {NOTE_ON, NOTE_ON + 60, NOTE_ON + 127} <= found


def test_evaluation_is_not_transposed():
    module = RoundsDataModule(num_pieces=8, max_seq_len=64, transpose=12)
    module.setup()
    dataset = module.split_datasets["validation"]
    scored = [dataset.batch(-1, np.array([index])) for index in range(len(dataset))]
    labels = torch.cat([each["labels"][each["labels"] != -100] for each in scored])
    expected = dataset.sequence.input_ids[1:]
    expected = np.sort(expected[expected != TOKENIZER.bos])
    assert (np.sort(labels.numpy()) == expected).all()
    assert sum(int(each["num_units"].sum()) for each in scored) == dataset.sequence.num_units.sum()


def test_description_restores_the_tokenizer():
    module = RoundsDataModule(num_pieces=8)
    other = RoundsDataModule(num_pieces=8)
    other.inherited = module.description()
    assert other.tokenizer is not module.tokenizer
    assert other.description() == module.description()
    assert (module.vocab_size, module.description()["max_seq_len"]) == (518, 512)
    assert module.folder == other.folder


@pytest.mark.slow
def test_real_files():
    for name, count in {"maestro-sample-1-7.zip": 7, "nottingham-every-5th.zip": 207}.items():
        module = MidiFilesDataModule(str(sample_data(f"midi/{name}")), max_seq_len=512, transpose=5)
        module.setup()
        assert sum(len(pieces(module, split)) for split in ("train", "validation")) == count
        assert int(next(iter(module.val_dataloader()))["num_units"].sum()) > 0
