"""Tokens of music: MidiTok's MIDI-like tokens (Oore et al., arXiv 1808.03715) in steps of 10 ms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
from miditok import MIDILike, TokenizerConfig

from perceiver_plugins.music.midi_files import create_score, extract_notes
from perceiver_plugins.music.notes import NUM_PITCHES, Notes
from perceiver_registry.errors import UserError

# Descriptions of changed notes, as keys of the result of MidiTokenizer.encode.
RESTRUCK = "notes shortened because the same key is struck again"
UNKNOWN_PERCUSSION = "percussion notes left out (no sound of General MIDI)"

STEPS_PER_BEAT = 50
STEPS_PER_SECOND = 2 * STEPS_PER_BEAT
"""Steps of time. Tokens count beats of 120 per minute, the default of MIDI files: 10 ms, as in arXiv 1808.03715."""

OPTIONS: Mapping[str, Any] = {
    "pitch_range": (0, NUM_PITCHES - 1),
    "beat_res": {(0, 2): STEPS_PER_BEAT},
    "num_velocities": 32,
    # One sequence of piano and percussion, with a token where one follows the other.
    "use_programs": True,
    "programs": [0, -1],
    "one_token_stream_for_programs": True,
    "program_changes": True,
    # Times in seconds have no bars.
    "use_time_signatures": False,
}
"""Options of MidiTok's ``TokenizerConfig``: 32 velocities as in arXiv 1808.03715, and time shifts of up to 1 s."""


class MidiTokenizer:
    """Conversion of notes to tokens of MidiTok's ``MIDILike`` and back.

    A note is a token for its pitch and one for its velocity, and a token for its end. Time passes only with tokens for
    time shifts. Times are rounded to steps from the beginning of the piece, so that rounding errors do not accumulate.

    Args:
        description: result of :meth:`description`. Default: a tokenizer with :data:`OPTIONS`.

    Attributes:
        size: number of tokens.
        pad: token of padding.
        bos: token before a piece.
        eos: token after a piece.

    Raises:
        UserError: if the description is invalid, or was written by a version of MidiTok with other tokens.
    """

    def __init__(self, description: Mapping[str, Any] | None = None) -> None:
        self._miditok = MIDILike(TokenizerConfig(**OPTIONS))
        if description is not None:
            _check_options(description, self._miditok)
        self.names = [name for name, _ in sorted(self._miditok.vocab.items(), key=lambda item: item[1])]
        if description is not None and list(description["tokens"]) != self.names:
            used = description["miditok"].get("miditok_version")
            raise UserError(
                f"tokenizer: MidiTok {version('miditok')} has other tokens than version {used} of the checkpoint "
                f"(pip install miditok=={used})"
            )
        self.size = len(self.names)
        self.pad, self.bos, self.eos = (self._miditok.vocab[f"{name}_None"] for name in ("PAD", "BOS", "EOS"))
        self._is_pitched = self._mask("NoteOn", "NoteOff")
        self._begins_note = self._mask("NoteOn", "DrumOn")
        self._pitches = np.array([self._pitch(name) for name in self.names])
        self._velocities = np.asarray(self._miditok.velocities)

    def _mask(self, *kinds: str) -> np.ndarray:
        """Return a mask (size,) of the tokens of some kinds, such as "NoteOn"."""
        return np.array([name.partition("_")[0] in kinds for name in self.names])

    @staticmethod
    def _pitch(name: str) -> int:
        """Return the pitch in the name of a token; -1 for tokens without one."""
        kind, _, value = name.partition("_")
        return int(value) if kind in ("NoteOn", "NoteOff", "DrumOn", "DrumOff") else -1

    def description(self) -> dict[str, Any]:
        """Return the tokenizer as plain data for checkpoints: the content of MidiTok's file, and the tokens' names."""
        return {"miditok": json.loads(json.dumps(self._miditok.to_dict())), "tokens": list(self.names)}

    def encode(self, notes: Notes) -> tuple[np.ndarray, dict[str, int]]:
        """Convert notes to tokens, without ``bos`` and ``eos``.

        Times are rounded to the nearest step, and notes last at least one step. A note ends at the latest where the
        same key is struck again, as the token of an end names its key alone; notes of a key with the same onset are
        kept. Velocities are rounded to the nearest of the vocabulary's.

        Args:
            notes: the notes.

        Returns:
            Tokens (m,), int64, and the number of changed notes by description.
        """
        low, high = self._miditok.config.drums_pitch_range
        known = ~notes.is_drum | (notes.pitches >= low) & (notes.pitches <= high)
        changes = {UNKNOWN_PERCUSSION: int((~known).sum())}
        notes = notes.take(known)
        begins = np.rint(notes.onsets * STEPS_PER_SECOND).astype(np.int64)
        ends = np.maximum(np.rint(notes.ends * STEPS_PER_SECOND).astype(np.int64), begins + 1)
        shortened = np.minimum(ends, _next_onsets(notes.pitches + NUM_PITCHES * notes.is_drum, begins))
        changes[RESTRUCK] = int((shortened < ends).sum())
        nearest = np.abs(notes.velocities[:, None] - self._velocities).argmin(axis=1)
        # Of notes of a key with the same onset, the first token of an end is that of the first note: the shortest.
        ordered = Notes.from_columns(begins, shortened, notes.pitches, self._velocities[nearest], notes.is_drum)
        tokens: list[int] = []
        if ordered.size:
            score = create_score(ordered, ticks_per_second=1, resolution=STEPS_PER_BEAT)  # times are steps
            tokens = self._miditok.encode(score, no_preprocess_score=True).ids
        return np.array(tokens, np.int64), {reason: count for reason, count in changes.items() if count}

    def decode(self, tokens: np.ndarray) -> Notes:
        """Convert the tokens of a piece to notes, up to the first ``eos``.

        Any sequence is accepted: notes without a velocity and ends of notes that do not sound are ignored, and notes
        without an end last until the end of the sequence.

        Args:
            tokens: (m,), integers.
        """
        names = [self.names[token] for token in np.asarray(tokens).tolist()]
        if "EOS_None" in names:
            names = names[: names.index("EOS_None")]
        names = [name for name in names if name not in ("PAD_None", "BOS_None")]
        # MidiTok reads the value of the next token as a velocity, also if it is of another kind.
        names = [
            name
            for name, following in pairwise([*names, ""])
            if following.startswith("Velocity_") or name.partition("_")[0] not in ("NoteOn", "DrumOn")
        ]
        # An end of a note that does not sound has no effect.
        ends = [f"NoteOff_{self._pitch(name)}" for name in names if name.partition("_")[0] in ("NoteOn", "DrumOn")]
        if not ends:
            return Notes.from_rows([])
        names += ["Program_0", *ends, "Program_-1", *ends]
        score = self._miditok.decode([self._miditok.vocab[name] for name in names])
        notes = extract_notes(score, STEPS_PER_SECOND)
        return notes._replace(ends=np.maximum(notes.ends, notes.onsets + 1 / STEPS_PER_SECOND))

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


@lru_cache(maxsize=1)
def default_tokenizer() -> MidiTokenizer:
    """Return the tokenizer with :data:`OPTIONS`."""
    return MidiTokenizer()


def _check_options(description: Mapping[str, Any], miditok: Any) -> None:
    """Check that a description is that of a tokenizer with the options of MidiTok's ``miditok``.

    Raises:
        UserError: if it is not.
    """
    content = description.get("miditok")
    if not isinstance(content, Mapping) or content.get("tokenization") != "MIDILike" or "tokens" not in description:
        raise UserError("tokenizer: not the description of a tokenizer of music (train a model on music)")
    # Tokens of other options have another meaning.
    saved, expected = content.get("config"), json.loads(json.dumps(miditok.to_dict()))["config"]
    if not isinstance(saved, Mapping) or any(saved.get(name, value) != value for name, value in expected.items()):
        raise UserError("tokenizer: other options of MidiTok than those of this package (train a model on music)")


def _next_onsets(keys: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return the next later onset of each note's key, or the largest integer."""
    never = np.iinfo(np.int64).max
    order = np.lexsort((begins, keys))
    result = np.full(len(keys), never)
    following: dict[int, tuple[int, int]] = {}  # of each key: the onset after this one, and the one after that
    for index in order[::-1].tolist():
        key, begin = int(keys[index]), int(begins[index])
        onset, later = following.get(key, (never, never))
        if begin != onset:
            onset, later = begin, onset
        following[key] = onset, later
        result[index] = later
    return result
