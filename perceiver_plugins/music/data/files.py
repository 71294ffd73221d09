"""Music of MIDI files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from perceiver_plugins.music.data.module import MusicDataModule
from perceiver_plugins.music.data.prepared import Piece, Report
from perceiver_plugins.music.midi_files import MAX_SIZE, SUFFIXES, read_midi
from perceiver_plugins.sdk.data.class_folders import SPLIT_FOLDERS
from perceiver_plugins.sdk.data.file_trees import FileTree, ZipTree, open_tree, report_left_out
from perceiver_plugins.sdk.data.prepared_folder import file_checksum
from perceiver_plugins.sdk.data.splits import check_fraction, draw_groups
from perceiver_plugins.sdk.data.tree_files import require_files
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError


class MidiFilesDataModule(MusicDataModule):
    """Your own MIDI files (.mid, .midi) in a folder or zip archive, in subfolders as well. Each file is a piece.

    If there are folders named train and, optionally, val (or valid, validation) and test, files belong to the split of
    their folder. Otherwise a fixed part of the files is held out for validation and test. Of equal pieces, the first is
    kept.

    Notes of all tracks and instruments are read as one sequence of piano and percussion. Pitch bends and other controls
    are left out, as are pedals unless the tokens are those of perceiver-io. Files that are damaged or not MIDI
    are left out. All of this is counted and reported.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        val_fraction: Fraction of the files for validation, unless there are folders of splits.
        test_fraction: Fraction of the files for test, unless there are folders of splits; 0: no test data.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "no pieces with notes for training",
        "validation": "too few pieces to hold some out for validation",
        "test": "no test data (set test_fraction, or add a folder named test beside train)",
    }

    def __init__(
        self,
        path: str,
        val_fraction: float = 0.1,
        test_fraction: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        if not 0 <= test_fraction < 1 - val_fraction:
            raise UserError(
                f"test_fraction={test_fraction} must be at least 0, and its sum with val_fraction less than 1"
            )
        self.tree = open_tree(path)
        self.source = str(self.tree.path)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction

    def source_key(self) -> dict[str, Any]:
        return {"files": _checksums(self.tree, list(self._splits)), "options": [self.val_fraction, self.test_fraction]}

    @cached_property
    def _splits(self) -> dict[str, str]:
        """Split of each file."""
        names = require_files(self.tree, SUFFIXES, "MIDI files")
        return _folder_splits(self.tree, names) or self._drawn_splits(names)

    def _drawn_splits(self, names: list[str]) -> dict[str, str]:
        fractions = {"validation": self.val_fraction, "test": self.test_fraction}
        splits = dict.fromkeys(names, "train")
        for split, fraction in fractions.items():
            remaining = [name for name, current in splits.items() if current == "train"]
            if fraction and len(remaining) > 1:
                share = min(fraction * len(names), len(remaining) - 1) / len(remaining)
                splits |= dict.fromkeys(draw_groups(remaining, share), split)
        return splits

    def load_pieces(self, report: Report) -> Iterator[Piece]:
        for name, split in self._splits.items():
            shown = self.tree.shown(name)
            try:
                midi = read_midi(self.tree.read(name, MAX_SIZE), shown, self.tokenizer.reads_pedals)
            except DataError as error:
                report.leave_out(error)
            else:
                yield Piece(shown, split, midi.notes, midi.changes)

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        """Write small files and return the arguments that load them."""
        import numpy as np

        from perceiver_plugins.music.data.rounds import compose_round
        from perceiver_plugins.music.midi_files import write_midi

        for index in range(4):
            write_midi(folder / f"{index}.mid", compose_round(np.random.default_rng(index)))
        return {
            "path": str(folder),
            "test_fraction": 0.25,
            "max_seq_len": 64,
            "batch_size": 2,
            "cache_dir": str(folder / "cache"),
        }


def _folder_splits(tree: FileTree, names: list[str]) -> dict[str, str]:
    """Return the split of each file in a folder named by a split; an empty dict without a folder for training."""
    splits = {}
    for name in names:
        for folder in name.split("/")[:-1]:
            if folder.lower() in SPLIT_FOLDERS:
                splits[name] = SPLIT_FOLDERS[folder.lower()]
                break
    if "train" not in splits.values():
        return {}
    others = [name for name in names if name not in splits]
    report_left_out(str(tree.path), len(others), "MIDI files outside the folders of splits", ", ".join(others[:1]))
    return splits


def _checksums(tree: FileTree, names: list[str]) -> list[list[str]]:
    """Return the checksums that identify the content of the files."""
    if isinstance(tree, ZipTree):
        return [["", file_checksum(tree.path)]]
    return [[name, _checksum(tree, name)] for name in names]


def _checksum(tree: FileTree, name: str) -> str:
    try:
        return hashlib.sha256(tree.read(name, MAX_SIZE)).hexdigest()
    except DataError:
        return ""  # reported when the file is read
