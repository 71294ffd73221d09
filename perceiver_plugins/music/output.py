"""Files of notes: the suffix of a path determines the kind."""

from __future__ import annotations

from pathlib import Path

from perceiver_plugins.music.midi_files import SUFFIXES, write_midi
from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.piano_roll import write_piano_roll
from perceiver_plugins.music.synthesis import write_wav
from perceiver_registry.errors import UserError

OUTPUT_SUFFIXES = (*SUFFIXES, ".wav", ".png")
"""Suffixes of files that can be written: MIDI, sound and piano rolls."""

NAMED_SUFFIXES = f"{', '.join(OUTPUT_SUFFIXES[:-1])} or {OUTPUT_SUFFIXES[-1]}"
"""The suffixes in messages."""


def write_music(path: Path, notes: Notes, mark: float | None = None) -> None:
    """Write notes as a MIDI file (.mid, .midi), as sound (.wav) or as a piano roll (.png).

    Args:
        path: the file.
        notes: the notes.
        mark: time in seconds of a red line in a piano roll, such as the end of a prompt; None: no line.

    Raises:
        UserError: if the suffix is another one, or the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix == ".png":
        write_piano_roll(path, notes, mark)
    elif suffix == ".wav":
        write_wav(path, notes)
    elif suffix in SUFFIXES:
        write_midi(path, notes)
    else:
        raise UserError(f"{path}: must end in {NAMED_SUFFIXES}")
