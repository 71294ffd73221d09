"""Cache of the tokens of pieces on disk, read through memory maps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.tokenizer import MusicTokenizer
from perceiver_plugins.sdk.data.causal import TokenSequence

FORMAT = 1
"""Version of the files, of tokens and of rounds, part of the cache key: increase it when one changes."""

SPLITS = ("train", "validation", "test")

MAX_SHOWN = 5
"""Largest number of unreadable files that a report names. Arbitrary."""

COLUMNS: dict[str, np.dtype] = {"input_ids": np.dtype("<u2"), "num_notes": np.dtype("u1")}
"""Files of a split: tokens, and the number of notes that each begins."""


class Piece(NamedTuple):
    """Piece of music of a data set.

    Attributes:
        name: name for messages, such as the path of a file.
        split: one of :data:`SPLITS`.
        notes: the notes.
        changes: number of notes or events that differ from the source, by description.
    """

    name: str
    split: str
    notes: Notes
    changes: Mapping[str, int] = {}


@dataclass
class _Change:
    """Number of notes, events or pieces that are left out or differ, with the name of the first piece."""

    first: str
    count: int = 0
    pieces: int = 0


@dataclass
class Report:
    """Report of what is left out of a data set, or differs from its files.

    Attributes:
        source: name of the data set.
        changes: notes, events and pieces that are left out or differ, by reason.
        unreadable: errors of the files that cannot be read.
    """

    source: str
    changes: dict[str, _Change] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def add(self, name: str, reason: str, count: int = 1) -> None:
        """Count notes, events or pieces of the piece ``name``."""
        change = self.changes.setdefault(reason, _Change(name))
        change.count += count
        change.pieces += 1

    def leave_out(self, error: Exception) -> None:
        """Add a file that is left out because it cannot be read."""
        self.unreadable.append(str(error))

    def lines(self) -> list[str]:
        """Return a line for the files that cannot be read, and one for each kind of change."""
        shown = "; ".join(self.unreadable[:MAX_SHOWN]) + ("; ..." if len(self.unreadable) > MAX_SHOWN else "")
        count = len(self.unreadable)
        return [
            *([f"{self.source}: {count:,} files left out because they cannot be read: {shown}"] if count else []),
            *(
                f"{self.source}: {change.count:,} {reason} (files: {change.pieces:,}, first: {change.first})"
                for reason, change in self.changes.items()
            ),
        ]


def write_pieces(folder: Path, pieces: Iterable[Piece], tokenizer: MusicTokenizer, report: Report) -> Sequence[str]:
    """Write the tokens of pieces, each between the tokens for its begin and end, to be read by :func:`open_sequence`.

    Pieces without notes, and those with the same tokens as an earlier piece, are left out.

    Args:
        folder: folder for the files.
        pieces: the pieces.
        tokenizer: tokenizer of the pieces.
        report: report to add changes to.

    Returns:
        The lines of the report.
    """
    seen: set[bytes] = set()
    with ExitStack() as stack:
        files = {
            (split, column): stack.enter_context((folder / f"{split}.{column}").open("wb"))
            for split in SPLITS
            for column in COLUMNS
        }
        for piece in pieces:
            tokens, changes = tokenizer.encode(piece.notes)
            if not len(tokens):
                report.add(piece.name, "pieces without notes left out")
                continue
            digest = hashlib.blake2b(tokens.tobytes(), digest_size=16).digest()
            if digest in seen:
                report.add(piece.name, "pieces left out because they are equal to another")
                continue
            seen.add(digest)
            for reason, count in (*piece.changes.items(), *changes.items()):
                report.add(piece.name, reason, count)
            tokens = np.concatenate([[tokenizer.bos], tokens, [tokenizer.eos]])
            columns = {"input_ids": tokens, "num_notes": tokenizer.begins_note(tokens)}
            for column, values in columns.items():
                files[piece.split, column].write(values.astype(COLUMNS[column]).tobytes())
    return report.lines()


def open_sequence(folder: Path, split: str, tokenizer: MusicTokenizer) -> TokenSequence:
    """Memory-map the tokens of a split, whose units are notes."""
    columns = {}
    for column, dtype in COLUMNS.items():
        path = folder / f"{split}.{column}"
        columns[column] = np.memmap(path, dtype, "r") if path.stat().st_size else np.zeros(0, dtype)
    return TokenSequence(columns["input_ids"], columns["num_notes"], tokenizer.bos)
