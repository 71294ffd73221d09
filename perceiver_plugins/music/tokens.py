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

from perceiver_plugins.music.events import EVENTS, EventTokenizer
from perceiver_plugins.music.midi_files import create_score, extract_notes
from perceiver_plugins.music.notes import NUM_PITCHES, Notes
from perceiver_plugins.music.tokenizer import STEPS_PER_SECOND, MusicTokenizer
from perceiver_registry.errors import UserError

STEPS_PER_BEAT = STEPS_PER_SECOND // 2
"""Steps of time per beat. Tokens count beats of 120 per minute, the default of MIDI files."""

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

NOT_MUSIC = "tokenizer: not the description of a tokenizer of music (train a model on music)"
"""Message about descriptions of other data."""


class MidiTokenizer(MusicTokenizer):
    """Conversion of notes to tokens of MidiTok's ``MIDILike`` and back.

    A note is a token for its pitch and one for its velocity, and a token for its end. Time passes only with tokens for
    time shifts.

    Args:
        description: result of :meth:`description`. Default: a tokenizer with :data:`OPTIONS`.

    Raises:
        UserError: if the description is invalid, or was written by a version of MidiTok with other tokens.
    """

    def __init__(self, description: Mapping[str, Any] | None = None) -> None:
        self._miditok = MIDILike(TokenizerConfig(**OPTIONS))
        if description is not None:
            _check_options(description, self._miditok)
        vocab = self._miditok.vocab
        names = [name for name, _ in sorted(vocab.items(), key=lambda item: item[1])]
        if description is not None and list(description["tokens"]) != names:
            used = description["miditok"].get("miditok_version")
            raise UserError(
                f"tokenizer: MidiTok {version('miditok')} has other tokens than version {used} of the checkpoint "
                f"(pip install miditok=={used})"
            )
        super().__init__(names, *(vocab[f"{name}_None"] for name in ("PAD", "BOS", "EOS")))
        self._velocities = np.asarray(self._miditok.velocities)

    def description(self) -> dict[str, Any]:
        """Return the tokenizer as plain data for checkpoints: the content of MidiTok's file, and the tokens' names."""
        return {"miditok": json.loads(json.dumps(self._miditok.to_dict())), "tokens": list(self.names)}

    def _encode_steps(self, notes: Notes) -> list[int]:
        nearest = np.abs(notes.velocities[:, None] - self._velocities).argmin(axis=1)
        # Of notes of a key with the same onset, the first token of an end is that of the first note: the shortest.
        ordered = Notes.from_columns(*notes._replace(velocities=self._velocities[nearest]))
        score = create_score(ordered, ticks_per_second=1, resolution=STEPS_PER_BEAT)  # times are steps
        tokens: list[int] = self._miditok.encode(score, no_preprocess_score=True).ids
        return tokens

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
        begun = [name.partition("_")[2] for name in names if name.partition("_")[0] in ("NoteOn", "DrumOn")]
        ends = [f"NoteOff_{pitch}" for pitch in begun]
        if not ends:
            return Notes.from_rows([])
        names += ["Program_0", *ends, "Program_-1", *ends]
        score = self._miditok.decode([self._miditok.vocab[name] for name in names])
        notes = extract_notes(score, STEPS_PER_SECOND)
        return notes._replace(ends=np.maximum(notes.ends, notes.onsets + 1 / STEPS_PER_SECOND))


@lru_cache(maxsize=1)
def default_tokenizer() -> MidiTokenizer:
    """Return the tokenizer with :data:`OPTIONS`."""
    return MidiTokenizer()


def load_tokenizer(description: Any) -> MusicTokenizer:
    """Restore a tokenizer, MidiTok's or that of perceiver-io's events, from its description.

    Args:
        description: result of :meth:`MusicTokenizer.description`.

    Raises:
        UserError: if the description is invalid, or was written by a version of MidiTok with other tokens.
    """
    if not isinstance(description, Mapping):
        raise UserError(NOT_MUSIC)
    return EventTokenizer(description) if EVENTS in description else MidiTokenizer(description)


def _check_options(description: Mapping[str, Any], miditok: Any) -> None:
    """Check that a description is that of a tokenizer with the options of MidiTok's ``miditok``.

    Raises:
        UserError: if it is not.
    """
    content = description.get("miditok")
    if not isinstance(content, Mapping) or content.get("tokenization") != "MIDILike" or "tokens" not in description:
        raise UserError(NOT_MUSIC)
    # Tokens of other options have another meaning.
    saved, expected = content.get("config"), json.loads(json.dumps(miditok.to_dict()))["config"]
    if not isinstance(saved, Mapping) or any(saved.get(name, value) != value for name, value in expected.items()):
        raise UserError("tokenizer: other options of MidiTok than those of this package (train a model on music)")
