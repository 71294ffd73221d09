"""Tokens of music: round trips, with symusic's reading of MIDI files as an oracle."""

from __future__ import annotations

import json
import zipfile
from collections import Counter

import midi_writing as midi
import numpy as np
import pytest
from sample_data import sample_data
from symusic import Score

from perceiver_plugins.music.events import EventTokenizer
from perceiver_plugins.music.midi_files import read_midi
from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.tokenizer import RESTRUCK, UNKNOWN_PERCUSSION, MusicTokenizer
from perceiver_plugins.music.tokens import MidiTokenizer
from perceiver_registry.errors import UserError

STEP = 0.01

TOKENIZER = MidiTokenizer()


def by_key(notes: Notes) -> np.ndarray:
    """Rows (key, onset, end, velocity), sorted; percussion has keys from 128."""
    table = np.stack([notes.pitches + 128 * notes.is_drum, notes.onsets, notes.ends, notes.velocities], axis=1)
    return table[np.lexsort(table.T[::-1])]


def rows(notes: Notes) -> list[tuple]:
    return [tuple(row) for row in by_key(notes).tolist()]


def symusic_rows(content: bytes) -> np.ndarray:
    """Rows (key, onset) of a file as symusic reads it, sorted."""
    score = Score.from_midi(content).to("second")
    found = [
        (note.pitch + 128 * track.is_drum, note.time)
        for track in score.tracks
        for note in track.notes
        if not track.is_drum or 27 <= note.pitch <= 88
    ]
    return np.array(sorted(found)).reshape(-1, 2)


def ids(names: str) -> list[int]:
    return [TOKENIZER.names.index(name) for name in names.split()]


def test_tokens_of_a_small_piece() -> None:
    notes = Notes.from_rows(
        [(0.0, 0.1, 60, 64, False), (0.1, 2.5, 62, 1, False), (0.1, 0.11, 36, 127, True), (2.5, 2.6, 62, 9, False)]
    )
    tokens, changes = TOKENIZER.encode(notes)
    expected = (
        "Program_0 NoteOn_60 Velocity_63 TimeShift_0.10.50 NoteOff_60 NoteOn_62 Velocity_3 "
        "Program_-1 DrumOn_36 Velocity_127 TimeShift_0.1.50 DrumOff_36 TimeShift_2.0.50 TimeShift_2.0.50 "
        "TimeShift_0.39.50 Program_0 NoteOff_62 NoteOn_62 Velocity_7 TimeShift_0.10.50 NoteOff_62"
    )
    assert (tokens.tolist(), changes) == (ids(expected), {})


@pytest.mark.parametrize("seed", range(12))
def test_every_note_of_random_files_is_kept(seed: int) -> None:
    rng = np.random.default_rng(seed)
    division, tempo = int(rng.integers(1, 2000)), int(rng.integers(50_000, 2_000_000))
    now, events, sounding = 0, [(0, midi.tempo(tempo))], Counter[int]()
    for _ in range(300):  # overlapping notes of few keys, on two channels
        key = int(rng.choice([0, 60, 61, 127, 9 * 128 + 36, 9 * 128 + 88]))
        delta = int(rng.integers(0, division // 8 + 2))
        if sounding[key] and rng.random() < 0.5:
            events.append((delta, midi.off(key % 128, key // 128)))
            sounding[key] -= 1
        else:
            events.append((delta, midi.on(key % 128, int(rng.integers(1, 128)), key // 128)))
            sounding[key] += 1
        now += delta
    events += [(1, midi.off(key % 128, key // 128)) for key, count in sounding.items() for _ in range(count)]
    content = midi.file(midi.track(*events), division=division)
    expected = symusic_rows(content)
    notes = read_midi(content, "a.mid").notes
    tokens, _ = TOKENIZER.encode(notes)
    found = by_key(TOKENIZER.decode(tokens))[:, :2]
    assert len(expected) > 100
    assert found.shape == expected.shape
    assert (found[:, 0] == expected[:, 0]).all()
    assert np.abs(found[:, 1] - expected[:, 1]).max() <= STEP / 2 + 1e-4 * STEP + 1e-7 * expected[:, 1].max()


@pytest.mark.parametrize("division", [1, 96, 480, 1001])
def test_velocities_and_times_of_random_files(division: int) -> None:
    content, expected_notes = midi.random_file(np.random.default_rng(division), division=division)
    notes = read_midi(content, "a.mid").notes
    tokens, _ = TOKENIZER.encode(notes)
    decoded = TOKENIZER.decode(tokens)
    assert decoded.size == notes.size == len(expected_notes)
    assert np.abs(by_key(decoded)[:, 1] - by_key(notes)[:, 1]).max() <= STEP / 2 + 1e-9
    assert np.abs(decoded.velocities.mean() - notes.velocities.mean()) < 1


def test_ends_are_within_half_a_step() -> None:
    # keys that are not struck again while they sound
    rng = np.random.default_rng(3)
    begins = np.cumsum(rng.uniform(0.02, 0.5, 300))
    pitches = np.arange(300) % 128
    notes = Notes.from_columns(
        begins, begins + rng.uniform(0.02, 2, 300), pitches, rng.integers(1, 128, 300), np.zeros(300)
    )
    tokens, changes = TOKENIZER.encode(notes)
    found, expected = (by_key(each) for each in (TOKENIZER.decode(tokens), notes))
    assert changes == {}
    assert (found[:, 0] == expected[:, 0]).all()
    assert np.abs(found[:, 1:3] - expected[:, 1:3]).max() <= STEP / 2 + 1e-9
    assert np.abs(found[:, 3] - expected[:, 3]).max() <= 2


def test_tokens_of_decoded_notes_are_the_same() -> None:
    notes = read_midi(midi.random_file(np.random.default_rng(4))[0], "a.mid").notes
    tokens, _ = TOKENIZER.encode(notes)
    again, changes = TOKENIZER.encode(TOKENIZER.decode(tokens))
    assert (tokens.tolist(), changes) == (again.tolist(), {})


@pytest.mark.parametrize("tokenizer", [TOKENIZER, EventTokenizer()], ids=["MidiTok", "perceiver-io"])
def test_a_thousand_intervals_of_a_third_of_a_step_do_not_drift(tokenizer: MusicTokenizer) -> None:
    onsets = np.arange(1000) * (STEP / 3)
    notes = Notes.from_columns(onsets, onsets + 0.5, np.arange(1000) % 128, np.full(1000, 64), np.zeros(1000))
    decoded = tokenizer.decode(tokenizer.encode(notes)[0])
    assert np.abs(np.sort(decoded.onsets) - onsets).max() <= STEP / 2 + 1e-9


def test_a_key_that_is_struck_again_ends_and_is_reported() -> None:
    notes = Notes.from_rows([(0, 1, 60, 63, False), (0.5, 0.75, 60, 67, False), (0.2, 0.9, 60, 71, True)])
    tokens, changes = TOKENIZER.encode(notes)
    assert rows(TOKENIZER.decode(tokens)) == [(60, 0, 0.5, 63), (60, 0.5, 0.75, 67), (188, 0.2, 0.9, 71)]
    assert changes == {RESTRUCK: 1}


def test_unisons_are_kept() -> None:
    notes = Notes.from_rows(
        [(0, 2, 60, 63, False), (0, 1, 60, 67, False), (0, 0.5, 64, 3, False), (3, 4, 60, 3, False)]
    )
    assert rows(TOKENIZER.decode(TOKENIZER.encode(notes)[0])) == rows(notes)


def test_unknown_percussion_is_left_out_and_reported() -> None:
    notes = Notes.from_rows([(0, 1, pitch, 63, True) for pitch in (0, 26, 27, 88, 89, 127)])
    tokens, changes = TOKENIZER.encode(notes)
    assert TOKENIZER.decode(tokens).pitches.tolist() == [27, 88]
    assert changes == {UNKNOWN_PERCUSSION: 4}


def test_an_empty_piece_has_no_tokens() -> None:
    tokens, changes = TOKENIZER.encode(Notes.from_rows([]))
    assert (len(tokens), changes) == (0, {})
    for empty in (tokens, np.array([TOKENIZER.bos, TOKENIZER.eos, *ids("NoteOn_60 Velocity_63")])):
        assert TOKENIZER.decode(empty).size == 0


def test_generated_tokens_are_completed() -> None:
    # an end without a note, a velocity without a note, a note without an end, and a last note without a velocity
    tokens = ids("NoteOff_50 Velocity_3 NoteOn_60 Velocity_63 TimeShift_0.10.50 DrumOn_36 Velocity_7 NoteOn_62")
    notes = TOKENIZER.decode(np.array([TOKENIZER.bos, *tokens]))
    assert (60, 0, 0.1, 63) in rows(notes)
    assert (notes.ends - notes.onsets >= STEP - 1e-9).all()


@pytest.mark.parametrize(
    "names",
    ["NoteOn_60", "NoteOn_60 NoteOff_62", "NoteOn_60 NoteOn_61", "DrumOn_40 TimeShift_0.1.50", "NoteOn_60 Program_0"],
)
def test_notes_without_a_velocity_are_ignored(names: str) -> None:
    assert TOKENIZER.decode(np.array(ids(names))).size == 0
    (row,) = rows(TOKENIZER.decode(np.array(ids(f"{names} NoteOn_50 Velocity_7 TimeShift_0.1.50 NoteOff_50"))))
    assert (row[0], row[3]) == (50, 7)


def test_any_tokens_can_be_decoded() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        notes = TOKENIZER.decode(rng.integers(3, TOKENIZER.size, 200))
        again, _ = TOKENIZER.encode(notes)
        assert TOKENIZER.decode(again).size == notes.size - TOKENIZER.encode(notes)[1].get(UNKNOWN_PERCUSSION, 0)


def test_transposition() -> None:
    notes = read_midi(midi.random_file(np.random.default_rng(6))[0], "a.mid").notes
    notes = notes.take(notes.is_drum | ((notes.pitches > 20) & (notes.pitches < 100)))
    tokens, _ = TOKENIZER.encode(notes)
    low, high = TOKENIZER.pitch_range(tokens)
    pitches = notes.pitches[~notes.is_drum]
    assert (low, high) == (pitches.min(), pitches.max())
    for semitones in (-low, 0, 5, 127 - high):
        shifted = notes._replace(pitches=np.where(notes.is_drum, notes.pitches, notes.pitches + semitones))
        expected = rows(TOKENIZER.decode(TOKENIZER.encode(shifted)[0]))
        assert rows(TOKENIZER.decode(TOKENIZER.transpose(tokens, semitones))) == expected


def test_pitch_range_without_notes() -> None:
    assert TOKENIZER.pitch_range(np.array(ids("BOS_None TimeShift_0.1.50 DrumOn_36"))) == (127, 0)


def test_notes_are_counted_by_their_first_token() -> None:
    notes = Notes.from_rows([(0, 1, 60, 63, False), (0, 1, 36, 63, True)])
    tokens, _ = TOKENIZER.encode(notes)
    assert TOKENIZER.begins_note(tokens).sum() == 2


def test_description_is_plain_data_and_restores_the_tokenizer() -> None:
    data = json.loads(json.dumps(TOKENIZER.description()))
    assert data == TOKENIZER.description()
    restored = MidiTokenizer(data)
    assert restored.description() == data
    notes = read_midi(midi.random_file(np.random.default_rng(6))[0], "a.mid").notes
    assert (restored.encode(notes)[0] == TOKENIZER.encode(notes)[0]).all()


@pytest.mark.parametrize("data", [{}, {"miditok": {}}, {"miditok": {"tokenization": "REMI"}, "tokens": []}])
def test_invalid_descriptions(data: dict) -> None:
    with pytest.raises(UserError, match=r"^tokenizer: not the description of a tokenizer of music"):
        MidiTokenizer(data)


@pytest.mark.parametrize("options", [{"beat_res": {"0_2": 10**7}}, {"use_programs": False}, {"pitch_range": "x"}])
def test_other_options_are_refused(options: dict) -> None:
    data = TOKENIZER.description()
    data["miditok"]["config"] |= options
    with pytest.raises(UserError, match=r"^tokenizer: other options of MidiTok"):
        MidiTokenizer(data)


def test_tokens_of_another_version_are_refused() -> None:
    data = TOKENIZER.description()
    data["tokens"][4:6] = data["tokens"][5], data["tokens"][4]
    data["miditok"]["miditok_version"] = "2.9"
    with pytest.raises(UserError, match=r"other tokens than version 2\.9 .*\(pip install miditok==2.9\)$"):
        MidiTokenizer(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "files", "notes", "tokens_per_note", "shortened"),
    [
        ("maestro-sample-1-7.zip", 7, 76_516, 4.6, 0),
        ("nottingham-every-5th.zip", 207, 70_805, 3.6, 0),
        ("pop909-every-9th.zip", 101, 164_984, 4.3, 7_115),
    ],
)
def test_every_note_of_real_files_is_kept(
    archive: str, files: int, notes: int, tokens_per_note: float, shortened: int
) -> None:
    changes, errors, count, num_tokens = Counter[str](), [], 0, 0
    with zipfile.ZipFile(sample_data(f"midi/{archive}")) as opened:
        contents = [opened.read(name) for name in opened.namelist() if name.endswith(".mid")]
    for content in contents:
        tokens, changed = TOKENIZER.encode(read_midi(content, "a.mid").notes)
        changes.update(changed)
        found, expected = by_key(TOKENIZER.decode(tokens))[:, :2], symusic_rows(content)
        assert (found[:, 0] == expected[:, 0]).all()
        errors.append(np.abs(found[:, 1] - expected[:, 1]).max())
        count += len(found)
        num_tokens += len(tokens)
    assert (len(contents), count, round(num_tokens / count, 1)) == (files, notes, tokens_per_note)
    assert max(errors) <= STEP / 2 + 1e-9
    assert changes == ({RESTRUCK: shortened} if shortened else {})
