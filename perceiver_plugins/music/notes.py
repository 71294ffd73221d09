"""Notes of a piece of music."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

NUM_PITCHES = 128
"""Number of MIDI pitches and velocities. Pitch 60 is middle C, 69 is A at 440 Hz."""


class Notes(NamedTuple):
    """Notes of a piece, sorted by onset, kind, pitch and end.

    Attributes:
        onsets: (notes,) float64, seconds.
        ends: (notes,) float64, seconds.
        pitches: (notes,) int64, MIDI pitches from 0 to 127; of percussion, the number of the sound.
        velocities: (notes,) int64, MIDI velocities from 1 to 127.
        is_drum: (notes,) bool, True for percussion.
    """

    onsets: np.ndarray
    ends: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray
    is_drum: np.ndarray

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[float, float, int, int, bool]]) -> Notes:
        """Create notes from rows (onset, end, pitch, velocity, is_drum) in any order."""
        table = np.array(list(rows), np.float64).reshape(-1, 5)
        return cls.from_columns(*table.T)

    @classmethod
    def from_columns(
        cls, onsets: ArrayLike, ends: ArrayLike, pitches: ArrayLike, velocities: ArrayLike, is_drum: ArrayLike
    ) -> Notes:
        """Create notes from columns (notes,) in any order."""
        notes = cls(
            np.asarray(onsets, np.float64),
            np.asarray(ends, np.float64),
            np.asarray(pitches, np.int64),
            np.asarray(velocities, np.int64),
            np.asarray(is_drum, bool),
        )
        return notes.take(np.lexsort((notes.velocities, notes.ends, notes.pitches, notes.is_drum, notes.onsets)))

    def take(self, indices: np.ndarray) -> Notes:
        """Return the notes of an index array or a mask (notes,)."""
        return Notes(*(column[indices] for column in self))

    @property
    def size(self) -> int:
        """Number of notes."""
        return len(self.onsets)

    @property
    def duration(self) -> float:
        """End of the last note in seconds."""
        return float(self.ends.max(initial=0.0))


def next_onsets(keys: np.ndarray, onsets: np.ndarray) -> np.ndarray:
    """Return the next later onset (notes,) of each note's key; infinity after the last one.

    Args:
        keys: (notes,) integers, the keys.
        onsets: (notes,) times.
    """
    order = np.lexsort((onsets, keys))
    result = np.full(len(keys), np.inf)
    following: dict[int, tuple[float, float]] = {}  # of each key: the onset after this one, and the one after that
    for index in order[::-1].tolist():
        key, current = int(keys[index]), float(onsets[index])
        onset, later = following.get(key, (np.inf, np.inf))
        if current != onset:
            onset, later = current, onset
        following[key] = onset, later
        result[index] = later
    return result
