"""Tokens of music of perceiver-io: the MIDI events of Oore et al. (arXiv 1808.03715), in steps of 10 ms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_plugins.music.notes import NUM_PITCHES, Notes
from perceiver_plugins.music.tokenizer import STEPS_PER_SECOND, MusicTokenizer
from perceiver_registry.errors import UserError

EVENTS = "events"
"""Key of the description of :class:`EventTokenizer`, which other tokenizers lack."""

DESCRIPTION = {EVENTS: "perceiver-io"}

MAX_SHIFT = 100
"""Steps of the longest time shift, 1 s."""

VELOCITY_STEP = 4
"""Difference between the velocities of tokens. Velocities of notes are rounded down to a multiple of it."""

KINDS: Mapping[str, range] = {
    "NoteOn": range(NUM_PITCHES),
    "NoteOff": range(NUM_PITCHES),
    "TimeShift": range(1, MAX_SHIFT + 1),
    "Velocity": range(0, NUM_PITCHES, VELOCITY_STEP),
}
"""Kinds of events and their values, in the order of the tokens: pitches, steps and velocities. Padding follows."""


class EventTokenizer(MusicTokenizer):
    """Conversion of notes to the 389 tokens of perceiver-io's models of symbolic music and back.

    Tokens are those that perceiver-io's ``encode_midi`` returns for notes whose times are whole steps, and notes those
    of its ``decode_midi``. No token begins or ends a piece: in training data, padding separates pieces. There are no
    tokens for percussion.

    Args:
        description: result of :meth:`description`; it has no options.

    Raises:
        UserError: if the description is not that of this class.
    """

    bos_begins_prompts = False
    reads_pedals = True

    def __init__(self, description: Mapping[str, Any] = DESCRIPTION) -> None:
        if dict(description) != DESCRIPTION:
            raise UserError(f"tokenizer: not a description of events (expected {DESCRIPTION})")
        names = [f"{kind}_{value}" for kind, values in KINDS.items() for value in values]
        pad = len(names)
        super().__init__([*names, "PAD_None"], pad=pad, bos=pad, eos=pad)
        self._ids = {name: token for token, name in enumerate(self.names)}

    def description(self) -> dict[str, Any]:
        return dict(DESCRIPTION)

    def _encode_steps(self, notes: Notes) -> list[int]:
        times = np.stack([notes.onsets, notes.ends], axis=1).astype(np.int64).reshape(-1)  # of note 0, 0, 1, 1, ...
        events: list[str] = []
        now, previous = 0, 0
        for index in np.argsort(times, kind="stable").tolist():
            pitch, velocity = int(notes.pitches[index // 2]), int(notes.velocities[index // 2])
            full_shifts, steps = divmod(int(times[index]) - now, MAX_SHIFT)
            events += [f"TimeShift_{MAX_SHIFT}"] * full_shifts + [f"TimeShift_{steps}"] * (steps > 0)
            now = int(times[index])
            if index % 2:
                events.append(f"NoteOff_{pitch}")
                previous = -1
                continue
            # perceiver-io compares with the velocity of the previous event, which is not rounded.
            if velocity // VELOCITY_STEP != previous:
                events.append(f"Velocity_{velocity // VELOCITY_STEP * VELOCITY_STEP}")
            events.append(f"NoteOn_{pitch}")
            previous = velocity
        return [self._ids[event] for event in events]

    def decode(self, tokens: np.ndarray) -> Notes:
        """Convert tokens to notes, as perceiver-io does.

        Any sequence is accepted: padding, notes without an end, notes of no length, and ends of keys that were never
        struck are ignored. The end of a key ends its last note, also if that has ended before.

        Args:
            tokens: (m,), integers.
        """
        now, velocity = 0, 1
        begun: dict[str, tuple[int, int]] = {}  # of each pitch: onset and velocity of the last note
        rows = []
        for token in np.asarray(tokens).tolist():
            kind, _, value = self.names[token].partition("_")
            if kind == "TimeShift":
                now += int(value)
            elif kind == "Velocity":
                velocity = max(int(value), 1)  # 0 is the end of a note in MIDI files
            elif kind == "NoteOn":
                begun[value] = now, velocity
            elif kind == "NoteOff" and begun.get(value, (now, 0))[0] < now:
                onset, loudness = begun[value]
                rows.append((onset / STEPS_PER_SECOND, now / STEPS_PER_SECOND, int(value), loudness, False))
        return Notes.from_rows(rows)
