"""Rounds for four voices, composed by rule.

In a round, such as "Frère Jacques", all voices sing the same melody, one phrase apart. All phrases therefore sound at
the same time, and are composed together: for each beat, a chord of a functional progression, and the chord tone of each
phrase that moves least and avoids parallel fifths and octaves. Passing notes and tied notes are added afterwards.

Probabilities and the ranges of pitches, tempi and velocities are arbitrary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from perceiver_plugins.music.notes import Notes

NUM_VOICES = 4
"""Voices of a round, and phrases of its melody."""

MAJOR = (0, 2, 4, 5, 7, 9, 11)
MINOR = (0, 2, 3, 5, 7, 8, 11)
"""Semitones of the degrees of the major and the harmonic minor scale above the tonic."""

FOLLOWING = {0: (3, 4, 5, 1), 1: (4, 4, 0), 3: (4, 0, 1), 4: (0, 0, 5), 5: (1, 3)}
"""Degrees of the chords that may follow a chord, 0 being the tonic; repeated ones are more frequent."""

CENTRES = (52, 60, 64, 67)
"""Middle pitches of the phrases: the first is the bass of the harmony."""

REACH = 7
"""Largest distance of a chord tone from the middle pitch of its phrase in semitones."""

OCTAVES = (0, 12, 0, 12)
"""Transposition of the voices in semitones."""

MISSING_TONE, MISSING_FIFTH, PARALLEL, DOUBLED_LEADING_TONE, UNISON, JITTER = 60.0, 4.0, 30.0, 15.0, 3.0, 4.0
"""Costs of a chord, in semitones of movement of all phrases; the last is the size of random differences. Arbitrary."""


class Part(NamedTuple):
    """Note of a phrase. Begin and length are in half beats."""

    begin: int
    length: int
    pitch: int


def compose_round(rng: np.random.Generator) -> Notes:
    """Compose a round: key, metre, tempo, chords and melody are random.

    Each voice sings the melody twice.

    Args:
        rng: random generator.
    """
    scale = np.array(MAJOR if rng.random() < 0.6 else MINOR) + rng.integers(12)
    beats = int(rng.choice([6, 8, 9, 12]))  # per phrase
    bar = 3 if beats % 4 else 4
    chords = _progression(beats, rng)
    pitches = _phrases(chords, scale, rng)
    phrases = [_embellish(pitches[:, phrase], scale, rng) for phrase in range(NUM_VOICES)]
    melody = [
        note._replace(begin=note.begin + 2 * beats * (phrase + NUM_VOICES * repetition))
        for repetition in range(2)
        for phrase, notes in enumerate(phrases)
        for note in notes
    ]
    half_beat = int(rng.integers(18, 41)) / 100  # seconds: 75 to 167 beats per minute
    loudness = rng.integers(50, 90, NUM_VOICES)
    return Notes.from_rows(
        (
            (note.begin + 2 * beats * voice) * half_beat,
            (note.begin + 2 * beats * voice + note.length) * half_beat,
            note.pitch + OCTAVES[voice],
            int(loudness[voice]) + (12 if note.begin % (2 * bar) == 0 else 0),
            False,
        )
        for voice in range(NUM_VOICES)
        for note in melody
    )


def _progression(beats: int, rng: np.random.Generator) -> list[int]:
    """Draw the degree of the chord of each beat, from the tonic to a cadence."""
    chords = [0]
    while len(chords) < beats - 2:
        chords.append(int(rng.choice(FOLLOWING[chords[-1]])))
    return [*chords, 4, 0]


def _phrases(chords: list[int], scale: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Choose the pitches of all phrases for each chord: (beats, phrases)."""
    chosen: list[np.ndarray] = []
    for degree in chords:
        tones = scale[[(degree + step) % 7 for step in (0, 2, 4)]] % 12
        options = [
            [pitch for pitch in range(centre - REACH, centre + REACH + 1) if pitch % 12 in tones] for centre in CENTRES
        ]
        candidates = np.stack(np.meshgrid(*options, indexing="ij"), axis=-1).reshape(-1, NUM_VOICES)
        costs = _costs(candidates, tones, int(scale[6]) % 12) + JITTER * rng.random(len(candidates))
        if chosen:
            costs += np.abs(candidates - chosen[-1]).sum(axis=1) + PARALLEL * _parallels(chosen[-1], candidates)
        chosen.append(candidates[costs.argmin()])
    return np.array(chosen)


def _costs(candidates: np.ndarray, tones: np.ndarray, leading_tone: int) -> np.ndarray:
    """Return the costs (voicings,) of voicings (voicings, phrases): missing tones, unisons, doubled leading tones."""
    classes = candidates % 12
    present = (classes[:, :, None] == tones).any(axis=1)
    ordered = np.sort(candidates, axis=1)
    return (
        MISSING_TONE * (~present[:, :2]).sum(axis=1)
        + MISSING_FIFTH * ~present[:, 2]
        + DOUBLED_LEADING_TONE * ((classes == leading_tone).sum(axis=1) > 1)
        + UNISON * (np.diff(ordered, axis=1) == 0).sum(axis=1)
    )


def _parallels(previous: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Count the parallel fifths and octaves (voicings,) of voicings (voicings, phrases) after a voicing (phrases,)."""
    count = np.zeros(len(candidates), int)
    for first in range(NUM_VOICES):
        for second in range(first):
            before = (previous[first] - previous[second]) % 12
            if before in (0, 5, 7):
                after = (candidates[:, first] - candidates[:, second]) % 12
                count += (after == before) & (candidates[:, first] != previous[first])
    return count


def _embellish(pitches: np.ndarray, scale: np.ndarray, rng: np.random.Generator) -> list[Part]:
    """Make the notes of a phrase from its pitches (beats,), with passing notes and ties."""
    notes: list[Part] = []
    for beat, pitch in enumerate(pitches.tolist()):
        following = int(pitches[beat + 1]) if beat + 1 < len(pitches) else pitch
        between = [each for each in range(min(pitch, following) + 1, max(pitch, following)) if each % 12 in scale % 12]
        if notes and notes[-1].pitch == pitch and notes[-1].length == 2 and rng.random() < 0.5:
            notes[-1] = notes[-1]._replace(length=4)
        elif len(between) == 1 and rng.random() < 0.6:
            notes += [Part(2 * beat, 1, pitch), Part(2 * beat + 1, 1, between[0])]
        else:
            notes.append(Part(2 * beat, 2, pitch))
    return notes
