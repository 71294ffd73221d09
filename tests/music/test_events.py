"""Events of perceiver-io: the definition as an oracle, and tokens recorded from perceiver-io 0.11."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import numpy as np
import pytest
from sample_data import sample_data

from perceiver_plugins.music.events import EventTokenizer
from perceiver_plugins.music.midi_files import read_midi
from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.tokenizer import RESTRUCK, UNKNOWN_PERCUSSION
from perceiver_plugins.music.tokens import MidiTokenizer, load_tokenizer
from perceiver_registry.errors import UserError

STEP = 0.01

TOKENIZER = EventTokenizer()

OFF, SHIFT, VELOCITY, PAD = 128, 255, 356, 388
"""Pitches follow from 0 and from ``OFF`` on, shifts of s steps are ``SHIFT + s``, velocities ``VELOCITY + v // 4``."""

Row = tuple[int, int, int, int]


def to_notes(rows: list[Row]) -> Notes:
    """Notes of rows (onset, end, pitch, velocity), in steps."""
    return Notes.from_rows((onset * STEP, end * STEP, *others, False) for onset, end, *others in rows)


def to_rows(notes: Notes) -> list[Row]:
    """Sorted rows of notes."""
    columns = (np.rint(notes.onsets / STEP).astype(int), np.rint(notes.ends / STEP).astype(int), *notes[2:4])
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def encode_by_definition(rows: list[Row]) -> list[int]:
    """Tokens of rows in the order of their onsets, whose keys do not overlap."""
    events: list[tuple[int, int, int, int | None]] = []
    for number, (onset, end, pitch, velocity) in enumerate(rows):
        events += [(onset, 2 * number, pitch, velocity), (end, 2 * number + 1, OFF + pitch, None)]
    tokens: list[int] = []
    before: tuple[int, int | None] = (0, 0)
    for time, _, event, velocity in sorted(events):
        steps = time - before[0]
        tokens += [SHIFT + 100] * (steps // 100) + [SHIFT + rest for rest in [steps % 100] if rest]
        if velocity is not None and velocity // 4 != before[1]:
            tokens.append(VELOCITY + velocity // 4)
        tokens.append(event)
        before = (time, velocity)
    return tokens


def decode_by_definition(tokens: list[int]) -> list[Row]:
    """Rows of tokens, by a search for the note of each end."""
    times = np.cumsum([token - SHIFT if SHIFT < token < VELOCITY else 0 for token in tokens]).tolist()
    rows = []
    for index, token in enumerate(tokens):
        if not OFF <= token < 2 * OFF:
            continue
        begins = [other for other in range(index) if tokens[other] == token - OFF]
        if begins and times[begins[-1]] < times[index]:
            velocities = [4 * (each - VELOCITY) for each in tokens[: begins[-1]] if VELOCITY <= each < PAD]
            rows.append((times[begins[-1]], times[index], token - OFF, max(1, *velocities[-1:], 0)))
    return sorted(rows)


def shorten_by_definition(rows: list[Row]) -> list[Row]:
    """Rows that end at the latest where their key is struck again."""
    return [
        (onset, min([end, *(other[0] for other in rows if other[2] == pitch and other[0] > onset)]), pitch, velocity)
        for onset, end, pitch, velocity in rows
    ]


def random_rows(rng: np.random.Generator, pitches: list[int], span: int) -> list[Row]:
    onsets = rng.integers(0, span, rng.integers(1, 80)).tolist()
    rows = [
        (onset, onset + int(rng.integers(1, 250)), int(rng.choice(pitches)), int(rng.integers(1, 128)))
        for onset in onsets
    ]
    return sorted(rows, key=lambda row: (row[0], row[2], row[1], row[3]))


def test_tokens_equal_those_recorded_from_perceiver_io() -> None:
    # The first velocity and that of pitch 67 have no token: perceiver-io compares 3 // 4 with 0 and 64 // 4 with 16.
    rows = [
        (0, 50, 60, 3),
        (0, 25, 64, 16),
        (0, 300, 67, 64),
        (50, 51, 60, 127),
        (250, 260, 0, 15),
        (250, 400, 127, 12),
    ]
    expected = [60, 360, 64, 67, 280, 192, 280, 188, 387, 60, 256, 188, 355, 354, 359, 0, 359, 127, 265, 128]
    expected += [295, 195, 355, 255]
    tokens, changes = TOKENIZER.encode(to_notes(rows))
    assert (tokens.tolist(), tokens.dtype, changes) == (expected, np.int64, {})
    velocities = [1, 16, 16, 124, 12, 12]  # the first is 0 in perceiver-io, which no note has in a MIDI file
    assert to_rows(TOKENIZER.decode(tokens)) == sorted(
        (*row[:3], velocity) for row, velocity in zip(rows, velocities, strict=True)
    )


def test_hostile_tokens_are_decoded_as_by_perceiver_io() -> None:
    # two ends of a note, an end of no length, padding, a note without an end
    tokens = np.array([60, 300, 188, 255, 188, 61, 388, 359, 61, 256, 61, 300, 189, 130, 62])
    assert to_rows(TOKENIZER.decode(tokens)) == [(0, 45, 60, 1), (0, 45, 60, 1), (46, 91, 61, 12)]


@pytest.mark.parametrize("pitches", [list(range(128)), [0, 60, 127]])
def test_tokens_of_random_notes_equal_the_definition(pitches: list[int]) -> None:
    rng = np.random.default_rng(0)
    for span in (1, 5, 90, 600, 20_000) * 8:
        rows = random_rows(rng, pitches, span)
        shortened = shorten_by_definition(rows)
        tokens, changes = TOKENIZER.encode(to_notes(rows))
        assert tokens.tolist() == encode_by_definition(shortened)
        assert changes.get(RESTRUCK, 0) == sum(old != new for old, new in zip(rows, shortened, strict=True))


@pytest.mark.parametrize(
    "choices", [range(PAD + 1), [0, 60, 61, 188, 189, 256, 300, 356, 387], [60, 188, 255, 355, PAD]]
)
def test_notes_of_random_tokens_equal_the_definition(choices: Any) -> None:
    rng = np.random.default_rng(1)
    for size in (0, 1, 30, 300) * 8:
        tokens = rng.choice(np.array(choices), size)
        assert to_rows(TOKENIZER.decode(tokens)) == decode_by_definition(tokens.tolist())


def test_every_note_is_kept_and_onsets_are_within_half_a_step() -> None:
    rng = np.random.default_rng(2)
    for pitches in ([60], [60, 61], list(range(128))):
        onsets, size = rng.uniform(0, 40, 700), 700
        durations = rng.choice([0.0, 0.004, 0.2, 5.0], size)
        columns = onsets, onsets + durations, rng.choice(pitches, size), rng.integers(1, 128, size), np.zeros(size)
        notes = Notes.from_columns(*columns)
        found = TOKENIZER.decode(TOKENIZER.encode(notes)[0])
        order, expected = (np.lexsort((each.onsets, each.pitches)) for each in (found, notes))
        assert found.size == size
        assert (found.pitches[order] == notes.pitches[expected]).all()
        assert np.abs(found.onsets[order] - notes.onsets[expected]).max() <= STEP / 2 + 1e-9
        assert (found.ends - found.onsets >= STEP - 1e-9).all()


@pytest.mark.slow
def test_every_note_of_real_performances_is_kept() -> None:
    errors, num_notes, num_tokens, num_changes, num_repeated = [], 0, 0, 0, 0
    with zipfile.ZipFile(sample_data("midi/maestro-sample-1-7.zip")) as opened:
        contents = [opened.read(name) for name in opened.namelist() if name.endswith(".mid")]
    for content in contents:
        plain, notes = (read_midi(content, "a.mid", sustain=sustain).notes for sustain in (False, True))
        assert (notes.ends >= plain.ends).all()
        tokens, changes = TOKENIZER.encode(notes)
        found = TOKENIZER.decode(tokens)
        order, expected = (np.lexsort((each.onsets, each.pitches)) for each in (found, plain))
        assert (found.pitches[order] == plain.pitches[expected]).all()
        errors.append(np.abs(found.onsets[order] - plain.onsets[expected]).max())
        velocities = np.maximum(plain.velocities[expected] // 4 * 4, 1)
        num_repeated += (found.velocities[order] != velocities).sum()
        num_notes += found.size
        num_tokens += len(tokens)
        num_changes += len(changes)
    assert (len(contents), num_notes, round(num_tokens / num_notes, 1), num_changes) == (7, 76_516, 4.1, 0)
    assert num_repeated == 20
    assert max(errors) <= STEP / 2 + 1e-9


def test_notes_in_the_same_step_are_in_the_order_of_their_onsets() -> None:
    notes = Notes.from_rows([(0.001, 1, 72, 64, False), (0.004, 1, 60, 64, False), (0.0, 1, 66, 64, False)])
    tokens, _ = TOKENIZER.encode(notes)
    assert tokens[TOKENIZER.begins_note(tokens)].tolist() == [66, 72, 60]


def test_percussion_is_left_out_and_reported() -> None:
    notes = Notes.from_rows([(0, 1, 60, 64, False), (0, 1, 36, 64, True)])
    tokens, changes = TOKENIZER.encode(notes)
    assert (tokens.tolist(), changes) == ([372, 60, 355, 188], {UNKNOWN_PERCUSSION: 1})
    tokens, changes = TOKENIZER.encode(notes.take(notes.is_drum))
    assert (tokens.tolist(), changes) == ([], {UNKNOWN_PERCUSSION: 1})


def test_transposition_shifts_notes_alone() -> None:
    tokens = TOKENIZER.encode(to_notes([(0, 5, 60, 64), (0, 5, 70, 64)]))[0]
    assert TOKENIZER.pitch_range(tokens) == (60, 70)
    shifted = np.array([*TOKENIZER.transpose(tokens, 5), *TOKENIZER.transpose(np.array([PAD, -100]), 5)])
    assert shifted.tolist() == [*TOKENIZER.encode(to_notes([(0, 5, 65, 64), (0, 5, 75, 64)]))[0], PAD, -100]


def test_description_restores_the_tokenizer() -> None:
    assert (TOKENIZER.size, TOKENIZER.pad, TOKENIZER.bos, TOKENIZER.eos) == (389, PAD, PAD, PAD)
    for tokenizer in (TOKENIZER, MidiTokenizer()):
        restored = load_tokenizer(json.loads(json.dumps(tokenizer.description())))
        assert type(restored) is type(tokenizer)
        assert restored.names == tokenizer.names


@pytest.mark.parametrize("changes", [{"events": "other"}, {"events": None}, {"events": []}, {"steps": 10**9}])
def test_other_events_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"^tokenizer: not a description of events \(expected \{'events': 'perceiver-i"):
        load_tokenizer(TOKENIZER.description() | changes)


@pytest.mark.parametrize("description", [None, "events", ["events"], 3])
def test_other_data_is_not_a_description(description: Any) -> None:
    with pytest.raises(UserError, match=r"^tokenizer: not the description of a tokenizer of music"):
        load_tokenizer(description)
