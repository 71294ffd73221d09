"""Base class of tokenizers of music."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from perceiver_plugins.music.notes import NUM_PITCHES, Notes, next_onsets

# Descriptions of changed notes, as keys of the result of MusicTokenizer.encode.
RESTRUCK = "notes shortened because the same key is struck again"
UNKNOWN_PERCUSSION = "percussion notes left out (no token for their sounds)"

STEPS_PER_SECOND = 100
"""Steps of time: 10 ms, as in arXiv 1808.03715."""


class MusicTokenizer(ABC):
    """Conversion of notes to tokens and back.

    Tokens begin notes, end notes, or let time pass. Their names have a kind and a value, such as "NoteOn_60". Times are
    rounded to steps from the beginning of the piece, so that rounding errors do not accumulate.

    Args:
        names: names of all tokens.
        pad: token of padding.
        bos: token before a piece.
        eos: token after a piece.

    Attributes:
        names: names of all tokens.
        size: number of tokens.
        pad: token of padding.
        bos: token before a piece.
        eos: token after a piece.
    """

    bos_begins_prompts: ClassVar[bool] = True
    """Prompts begin with the token ``bos``."""

    reads_pedals: ClassVar[bool] = False
    """Notes are sustained by the pedal before they are converted."""

    def __init__(self, names: Sequence[str], pad: int, bos: int, eos: int) -> None:
        self.names = list(names)
        self.size = len(self.names)
        self.pad, self.bos, self.eos = pad, bos, eos
        self._is_pitched = self._mask("NoteOn", "NoteOff")
        self._begins_note = self._mask("NoteOn", "DrumOn")
        self._pitches = np.array([_pitch(name) for name in self.names])
        self._sounds = self._pitches[self._mask("DrumOn")]

    def _mask(self, *kinds: str) -> np.ndarray:
        """Return a mask (size,) of the tokens of some kinds, such as "NoteOn"."""
        return np.array([name.partition("_")[0] in kinds for name in self.names])

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Return the tokenizer as plain data for checkpoints."""

    def encode(self, notes: Notes) -> tuple[np.ndarray, dict[str, int]]:
        """Convert notes to tokens, without ``bos`` and ``eos``.

        Times are rounded to the nearest step, and notes last at least one step. A note ends at the latest where the
        same key is struck again, as the token of an end names its key alone; notes of a key with the same onset are
        kept. Velocities are rounded to one of the vocabulary's. Percussion without a token is left out.

        Args:
            notes: the notes.

        Returns:
            Tokens (m,), int64, and the number of changed notes by description.
        """
        known = ~notes.is_drum | np.isin(notes.pitches, self._sounds)
        changes = {UNKNOWN_PERCUSSION: int((~known).sum())}
        notes = notes.take(known)
        begins = np.rint(notes.onsets * STEPS_PER_SECOND)
        ends = np.maximum(np.rint(notes.ends * STEPS_PER_SECOND), begins + 1)
        shortened = np.minimum(ends, next_onsets(notes.pitches + NUM_PITCHES * notes.is_drum, begins))
        changes[RESTRUCK] = int((shortened < ends).sum())
        tokens = self._encode_steps(notes._replace(onsets=begins, ends=shortened)) if notes.size else []
        return np.array(tokens, np.int64), {reason: count for reason, count in changes.items() if count}

    @abstractmethod
    def _encode_steps(self, notes: Notes) -> list[int]:
        """Convert notes whose times are whole steps, in the order of their onsets before rounding, to tokens."""

    @abstractmethod
    def decode(self, tokens: np.ndarray) -> Notes:
        """Convert tokens to notes. Any sequence is accepted.

        Args:
            tokens: (m,), integers.
        """

    def begins_note(self, tokens: np.ndarray) -> np.ndarray:
        """Return a mask, of the shape of the tokens, of those that begin a note or a percussion sound."""
        return self._begins_note[tokens]

    def pitch_range(self, tokens: np.ndarray) -> tuple[int, int]:
        """Return the lowest and highest pitch of tokens, without percussion; (127, 0) without notes."""
        pitches = self._pitches[tokens[self._is_pitched[tokens] & (tokens >= 0)]]
        return int(pitches.min(initial=NUM_PITCHES - 1)), int(pitches.max(initial=0))

    def transpose(self, tokens: np.ndarray, semitones: np.ndarray | int) -> np.ndarray:
        """Shift the pitches of tokens. Percussion and negative numbers, such as ignored labels, remain.

        Args:
            tokens: tokens of any shape.
            semitones: shift, broadcast to the shape of the tokens. Pitches must stay between 0 and 127.
        """
        return np.where(self._is_pitched[tokens] & (tokens >= 0), tokens + semitones, tokens)


def _pitch(name: str) -> int:
    """Return the pitch in the name of a token; -1 for tokens without one."""
    kind, _, value = name.partition("_")
    return int(value) if kind in ("NoteOn", "NoteOff", "DrumOn", "DrumOff") else -1
