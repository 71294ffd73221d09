"""Reading and writing of MIDI files, by symusic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from symusic import Note, Score, Track

from perceiver_plugins.music.notes import Notes, next_onsets
from perceiver_plugins.sdk.errors import DataError, one_line

SUFFIXES = (".mid", ".midi")
"""Suffixes of MIDI files."""

MAX_SIZE = 16 * 2**20
"""Largest MIDI file in bytes. Arbitrary: an hour of piano has about 1 MB."""

MAX_SECONDS = 24 * 3600
"""Longest piece in seconds. Arbitrary: a limit against damaged times, as each second of silence is a token."""

WRITTEN_RESOLUTION = 500
"""Ticks per quarter note of written files. At the default tempo of 120 quarter notes per minute, a tick is 1 ms."""

SUSTAIN_PEDAL, PEDAL_DOWN = 64, 64
"""Control number of the sustain pedal in General MIDI, and its smallest value when it is down."""

# Descriptions of what is left out or differs, as keys of Midi.changes.
PEDALS = "pedal events left out (notes end when their keys are released)"
PITCH_BENDS = "pitch bends left out"
INSTRUMENTS = "tracks of other instruments read as piano"


@dataclass
class Midi:
    """Content of a MIDI file.

    Attributes:
        notes: notes of all tracks.
        changes: what is left out or differs from the file, a count by description.
    """

    notes: Notes
    changes: Mapping[str, int] = field(default_factory=dict)


def read_midi(content: bytes, name: str, sustain: bool = False) -> Midi:
    """Read the notes of a MIDI file.

    Tracks of all instruments are merged; percussion is marked. Tempo changes are applied. Pitch bends and other
    controls are not read, nor are notes without an end.

    Args:
        content: content of the file.
        name: path of the file, for messages.
        sustain: extend notes that begin while the sustain pedal is down, until it is released or their key is struck
            again. Otherwise, pedals are not read.

    Raises:
        DataError: if it is not a MIDI file of format 0 or 1, is damaged, too large or too long.
    """
    if len(content) > MAX_SIZE:
        raise DataError(f"{name}: more than {MAX_SIZE:,} bytes, the limit for a MIDI file")
    try:
        score = _read_score(content)
        seconds = score.to("second")
    except (RuntimeError, ValueError) as error:
        reason = one_line(error).removeprefix("MiniMidi: ").removesuffix(": iostream error")
        reason = reason.replace("Get ", "an event has ", 1)  # such as "Get velocity=192"
        raise DataError(f"{name}: not a valid MIDI file ({reason})") from error
    columns = [_sustained(track) if sustain else _note_columns(track) for track in seconds.tracks]
    notes = Notes.from_columns(*np.concatenate([np.zeros((5, 0)), *columns], axis=1))
    if not notes.duration <= MAX_SECONDS:  # or NaN
        raise DataError(
            f"{name}: the piece lasts {notes.duration / 3600:,.1f} hours, above the limit of {MAX_SECONDS // 3600} "
            "(check its tempo and ticks per quarter note)"
        )
    changes: Counter[str] = Counter()
    for track in score.tracks:
        changes[PEDALS] += 0 if sustain else len(track.pedals)
        changes[PITCH_BENDS] += len(track.pitch_bends)
        changes[INSTRUMENTS] += bool(track.program and len(track.notes) and not track.is_drum)
    return Midi(notes, +changes)


def write_midi(path: str | Path, notes: Notes) -> None:
    """Write notes to a MIDI file, rounded to milliseconds: a track of piano and one of percussion.

    Args:
        path: the file.
        notes: the notes.

    Raises:
        DataError: if it cannot be written.
    """
    score = create_score(notes, ticks_per_second=1000, resolution=WRITTEN_RESOLUTION)
    try:
        Path(path).write_bytes(score.dumps_midi())
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def create_score(notes: Notes, ticks_per_second: int, resolution: int) -> Any:
    """Create symusic's score of notes: a track of piano, and one of percussion, unless they are empty.

    Args:
        notes: the notes, each of at least one tick.
        ticks_per_second: ticks per second, to which times are rounded.
        resolution: ticks per quarter note.
    """
    score: Any = Score(resolution)
    for is_drum, name in ((False, "Piano"), (True, "Percussion")):
        chosen = notes.take(notes.is_drum == is_drum)
        begins, ends = (np.rint(times * ticks_per_second).astype(np.int32) for times in (chosen.onsets, chosen.ends))
        if chosen.size:
            track: Any = Track(name=name, is_drum=is_drum)
            track.notes = Note.from_numpy(
                time=begins,
                duration=np.maximum(ends - begins, 1),
                pitch=chosen.pitches.astype(np.int8),
                velocity=chosen.velocities.astype(np.int8),
            )
            score.tracks.append(track)
    return score


def extract_notes(score: Any, ticks_per_second: float) -> Notes:
    """Extract the notes of symusic's score in ticks.

    Args:
        score: the score.
        ticks_per_second: ticks per second.
    """
    columns = [_note_columns(track) for track in score.tracks]
    onsets, ends, *others = np.concatenate([np.zeros((5, 0)), *columns], axis=1)
    return Notes.from_columns(onsets / ticks_per_second, ends / ticks_per_second, *others)


def _read_score(content: bytes) -> Any:
    """Read a score in ticks.

    Raises:
        RuntimeError: if the content is damaged.
        ValueError: if the content is not a MIDI file that can be read.
    """
    if content[:4] != b"MThd":
        raise ValueError("it does not begin with MThd")
    score: Any = Score.from_midi(content)
    if content[8:10] == b"\x00\x02":
        raise ValueError("format 2; formats 0 and 1 are supported")
    if score.ticks_per_quarter < 1:
        raise ValueError("its ticks per quarter note are 0")
    if any((track.notes.numpy()[name] < 0).any() for track in score.tracks for name in ("time", "duration")):
        raise ValueError("its times are out of range")
    return score


def _note_columns(track: Any) -> np.ndarray:
    """Return onsets, ends, pitches, velocities and a mask of percussion of a track: (5, notes), float64."""
    notes = track.notes.numpy()
    onsets, durations = notes["time"].astype(np.float64), notes["duration"].astype(np.float64)
    is_drum = np.full(len(onsets), track.is_drum)
    return np.stack([onsets, onsets + durations, notes["pitch"], notes["velocity"], is_drum])


def _sustained(track: Any) -> np.ndarray:
    """Return the columns of :func:`_note_columns`, with the ends of notes extended by the sustain pedal.

    As in perceiver-io, a pedal whose value decreases gradually is up from the last value before it is down
    again, and the pedal does not sustain notes that begin before it is down, or if it is not released.
    """
    columns = _note_columns(track)
    controls = track.controls.numpy()
    is_pedal = controls["number"] == SUSTAIN_PEDAL
    times, is_down = controls["time"][is_pedal].astype(np.float64), controls["value"][is_pedal] >= PEDAL_DOWN
    first = int(is_down.argmax()) if is_down.any() else len(times)
    times, is_down = times[first:], is_down[first:]
    downs = times[is_down & ~np.append(False, is_down)[:-1]]
    ups = times[~is_down & np.append(is_down, True)[1:]]
    onsets, ends, pitches, *_ = columns
    spans = np.searchsorted(ups, onsets)  # the first that ends at the onset or later
    begins, releases = (np.append(each[: len(ups)], np.inf)[spans] for each in (downs, ups))
    columns[1] = np.where(begins <= onsets, np.maximum(ends, np.minimum(releases, next_onsets(pitches, onsets))), ends)
    return columns
