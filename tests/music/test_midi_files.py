"""MIDI files: their notes, what is refused, and what is left out."""

from __future__ import annotations

import random

import midi_writing as midi
import numpy as np
import pytest

from perceiver_plugins.music.midi_files import MAX_SIZE, read_midi, write_midi
from perceiver_plugins.music.notes import Notes
from perceiver_plugins.sdk.errors import DataError

ONE = midi.track((0, midi.on(60)), (480, midi.off(60)))


def rows(notes: Notes) -> list[tuple]:
    return list(zip(*(column.tolist() for column in notes), strict=True))


def read(content: bytes) -> list[tuple]:
    """Read (onset, end, pitch, velocity) of a file from which nothing is left out."""
    piece = read_midi(content, "a.mid")
    assert piece.changes == {}
    return [row[:4] for row in rows(piece.notes)]


def test_times_pitches_and_velocities() -> None:
    content = midi.file(
        midi.track((240, midi.on(60, 80)), (480, midi.off(60)), (0, midi.on(127, 1)), (1, midi.off(127)))
    )
    assert read(content) == [(0.25, 0.75, 60, 80), (0.75, pytest.approx(0.75 + 0.5 / 480), 127, 1)]


def test_tempo_changes_of_any_track_apply_to_all() -> None:
    tempi = midi.track((480, midi.tempo(1_000_000)), (480, midi.tempo(250_000)), (0, midi.tempo(2_000_000)))
    notes = midi.track((240, midi.on(60)), (480, midi.off(60)), (480, midi.on(62)), (480, midi.off(62)))
    assert read(midi.file(notes, tempi)) == [(0.25, 1.0, 60, 64), (2.5, 4.5, 62, 64)]


@pytest.mark.parametrize("division", [1, 96, 384, 1001, 32767])
def test_random_files_have_the_notes_that_were_written(division: int) -> None:
    content, expected = midi.random_file(np.random.default_rng(division), division=division, num_tempi=0)
    notes = read_midi(content, "a.mid").notes
    seconds = np.sort(np.array([row[:2] for row in expected]) * 0.5 / division, axis=0)
    np.testing.assert_allclose(np.sort(notes.onsets), seconds[:, 0], rtol=1e-6)
    np.testing.assert_allclose(np.sort(notes.ends), seconds[:, 1], rtol=1e-6)
    assert sorted(notes.pitches.tolist()) == sorted(row[2] for row in expected)
    assert notes.is_drum.sum() == sum(row[4] == 9 for row in expected)


def test_overlapping_notes_of_a_key_are_released_in_order() -> None:
    content = midi.file(
        midi.track((0, midi.on(60, 1)), (10, midi.on(60, 2)), (10, midi.off(60)), (10, midi.off(60))), division=500
    )
    assert read(content) == [(0.0, pytest.approx(0.02), 60, 1), (pytest.approx(0.01), pytest.approx(0.03), 60, 2)]


def test_notes_without_an_end_are_left_out() -> None:
    never, at_once = (0, midi.on(60)), [(0, midi.on(62)), (0, midi.off(62))]
    content = midi.file(midi.track(never, *at_once, (0, midi.on(64)), (250, midi.off(64))), division=500)
    assert read(content) == [(0.0, 0.0, 62, 64), (0.0, 0.25, 64, 64)]


def test_what_is_left_out_is_counted() -> None:
    piano = midi.track((0, b"\xb0\x40\x7f"), (0, midi.on(60)), (48, b"\xb0\x40\x00"), (480, midi.off(60)))
    flute = midi.track((0, b"\xc1\x49"), (0, midi.on(60, channel=1)), (10, b"\xe1\x01\x02"), (5, midi.off(60, 1)))
    piece = read_midi(midi.file(piano, flute), "a.mid")
    assert piece.notes.size == 2
    assert piece.changes == {
        "pedal events left out (notes end when their keys are released)": 1,
        "pitch bends left out": 1,
        "tracks of other instruments read as piano": 1,
    }


def pedal(value: int, channel: int = 0) -> bytes:
    return bytes([0xB0 | channel, 64, value])


def sustained_ends(*events: tuple[int, bytes]) -> list[float]:
    """Ends of the notes of a file of events (delta in steps of 10 ms, message), sustained by its pedal."""
    piece = read_midi(midi.file(midi.track(*events), division=50), "a.mid", sustain=True)
    assert piece.changes == {}
    return [round(end, 4) for end in piece.notes.ends.tolist()]


DOWN, UP = pedal(64), pedal(63)

NOTE = [(10, midi.on(60)), (10, midi.off(60))]
"""Note from step 10 to step 20 after the event before it."""


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([(0, DOWN), *NOTE, (30, UP)], [0.5]),
        ([(0, DOWN), *NOTE, (30, UP), (5, pedal(20)), (5, pedal(0))], [0.6]),  # a pedal that is released gradually
        ([(0, UP), (0, DOWN), (0, pedal(127)), *NOTE, (30, UP), (5, DOWN), (5, UP)], [0.5]),
        ([(0, DOWN), (5, midi.on(60)), (5, UP), (5, midi.off(60))], [0.15]),  # the key is held longer
        ([*NOTE[:1], (5, DOWN), (5, midi.off(60)), (5, UP)], [0.2]),  # the note began before
        ([*NOTE[:1], (0, DOWN), (5, midi.off(60)), (5, UP)], [0.2]),  # at the same time
        ([(0, DOWN), (10, UP), (0, midi.on(60)), (5, midi.off(60))], [0.15]),  # after the release
        ([(0, DOWN), *NOTE, (5, midi.on(60)), (5, midi.off(60)), (5, UP)], [0.25, 0.35]),  # struck again
        ([(0, DOWN), *NOTE, (5, midi.on(62)), (5, midi.off(62)), (5, UP)], [0.35, 0.35]),
        ([(0, DOWN), *NOTE, (5, midi.on(60)), (5, UP), (9, midi.off(60))], [0.25, 0.39]),
        ([(0, DOWN), (10, UP), (0, DOWN), (0, midi.on(60)), (5, midi.off(60)), (5, UP)], [0.15]),  # between two pedals
        ([(0, DOWN), *NOTE], [0.2]),  # never released
        ([(0, pedal(127, 1)), *NOTE, (30, pedal(0, 1))], [0.2]),  # of another channel
        ([*NOTE, (30, UP)], [0.2]),
    ],
)
def test_the_sustain_pedal_moves_ends(events: list[tuple[int, bytes]], expected: list[float]) -> None:
    assert sustained_ends(*events) == expected
    keys = [(delta, message if message[:1] != b"\xb0" else pedal(0)) for delta, message in events]
    without = [round(end, 4) for end in read_midi(midi.file(midi.track(*keys), division=50), "a").notes.ends.tolist()]
    assert sustained_ends(*keys) == without


def test_empty_files_have_no_notes() -> None:
    for content in (midi.file(), midi.file(midi.track())):
        assert read_midi(content, "a.mid", sustain=True).notes.size == 0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it does not begin with MThd"),
        (b"<html>", "it does not begin with MThd"),
        (midi.file(ONE, kind=2), "format 2; formats 0 and 1 are supported"),
        (midi.file(ONE, division=0), "its ticks per quarter note are 0"),
        (midi.file(ONE, division=0xE728), "Division type is not ticks per quarter!"),
        (midi.file(ONE)[:-1], "Invalid chunk length 13 (remaining bytes after header: 12)"),
        (midi.file(midi.track((0, b"\x90\x3c\xc0"))), "an event has velocity=192"),
    ],
)
def test_damaged_files(content: bytes, problem: str) -> None:
    with pytest.raises(DataError) as caught:
        read_midi(content, "folder/a.mid")
    assert str(caught.value) == f"folder/a.mid: not a valid MIDI file ({problem})"


def test_limits() -> None:
    with pytest.raises(DataError, match=r"^a.mid: more than 16,777,216 bytes, the limit for a MIDI file$"):
        read_midi(bytes(MAX_SIZE + 1), "a.mid")
    long = midi.file(midi.track((2**28 - 1, midi.on(60)), (1, midi.off(60))), division=1)
    with pytest.raises(DataError, match=r"^a.mid: the piece lasts 37,282.7 hours, above the limit of 24 \(check its"):
        read_midi(long, "a.mid")
    beyond = [(2**28 - 1, midi.on(60)), (1, midi.off(60))] * 9  # more ticks than 32 bits hold
    with pytest.raises(DataError, match=r"^a.mid: "):
        read_midi(midi.file(midi.track(*beyond), division=32767), "a.mid")


def test_random_damage_gives_notes_or_one_line() -> None:
    rng = random.Random(0)
    content, _ = midi.random_file(np.random.default_rng(1), num_notes=30)
    messages = []
    for index in range(600):
        data = bytearray(content)
        position = rng.randrange(len(data))
        if index % 3 == 0:
            del data[position:]
        elif index % 3 == 1:
            data[position] = rng.randrange(256)
        else:
            data[position:position] = rng.randbytes(rng.randrange(1, 30))
        try:
            notes = read_midi(bytes(data), "a.mid", sustain=index % 2 == 0).notes
        except DataError as error:
            messages.append(str(error))
        else:
            assert ((notes.ends >= notes.onsets) & (notes.onsets >= 0) & (notes.pitches < 128)).all()
    assert len(messages) > 200
    assert all(message.startswith("a.mid: ") and "\n" not in message for message in messages)


def test_written_files_have_the_same_notes(tmp_path) -> None:
    rng = np.random.default_rng(2)
    onsets = rng.integers(0, 20_000, 500) / 1000
    pitches = np.arange(500) % 128
    notes = Notes.from_columns(
        onsets, onsets + rng.integers(1, 500, 500) / 1000, pitches, 1 + pitches % 127, pitches % 5 == 0
    )
    write_midi(tmp_path / "a.mid", notes)
    found = read_midi((tmp_path / "a.mid").read_bytes(), "a.mid").notes
    for column, expected in zip(found._replace(ends=found.onsets), notes._replace(ends=notes.onsets), strict=True):
        np.testing.assert_allclose(column, expected, atol=1e-5)
    # Overlapping notes of the same key exchange their ends.
    np.testing.assert_allclose(np.sort(found.ends), np.sort(notes.ends), atol=1e-5)


def test_repeated_notes_are_written_apart(tmp_path) -> None:
    notes = Notes.from_rows([(0, 0.5, 60, 64, False), (0.5, 1, 60, 65, False), (1, 1, 60, 66, False)])
    write_midi(tmp_path / "a.mid", notes)
    assert read((tmp_path / "a.mid").read_bytes()) == [
        (0, 0.5, 60, 64),
        (0.5, 1, 60, 65),
        (1, pytest.approx(1.001), 60, 66),
    ]


def test_unwritable_files(tmp_path) -> None:
    with pytest.raises(DataError, match=r"missing/a.mid: cannot be written \(No such file or directory\)$"):
        write_midi(tmp_path / "missing" / "a.mid", Notes.from_rows([]))
