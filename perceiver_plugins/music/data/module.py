"""Base class of the data modules of music."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from perceiver_plugins.music.data.prepared import FORMAT, SPLITS, Piece, Report, open_sequence, write_pieces
from perceiver_plugins.music.data.transposition import TransposedWindows
from perceiver_plugins.music.tokenizer import MusicTokenizer
from perceiver_plugins.music.tokens import default_tokenizer, load_tokenizer
from perceiver_plugins.sdk.data.causal import CausalDataModule, ScoringWindows, TokenSequence, TrainingWindows
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.data.prepared_folder import cache_root, make_folder
from perceiver_registry.errors import UserError


class MusicDataModule(CausalDataModule):
    """Base class of data modules of symbolic music, for causal models.

    Pieces are converted to MIDI-like tokens once, into a cache. Each piece is between tokens for its begin and end, and
    the pieces of a split are concatenated. Batches are those of
    :class:`~perceiver_plugins.sdk.data.causal.CausalDataModule`; units are notes.

    Subclasses implement :meth:`source_key` and :meth:`load_pieces`.

    Args:
        max_seq_len: Largest number of tokens that the model reads before it predicts the next.
        transpose: Transpose each training example in each epoch by up to this number of semitones, up or down; 0: not
            at all.
        cache_dir: Folder for tokens; null: $PERCEIVER_CACHE or ~/.cache/perceiver.
    """

    source: str
    """Name of the data in reports."""

    def __init__(self, max_seq_len: int = 512, transpose: int = 0, cache_dir: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(max_seq_len=max_seq_len)
        if not 0 <= transpose <= 127:
            raise UserError(f"transpose={transpose} must be a number of semitones from 0 to 127")
        self.max_seq_len = max_seq_len
        self.transpose = transpose
        self.cache_dir = cache_dir

    # for subclasses to implement

    @abstractmethod
    def source_key(self) -> dict[str, Any]:
        """Return plain data that identifies the pieces, part of the cache key."""

    @abstractmethod
    def load_pieces(self, report: Report) -> Iterable[Piece]:
        """Load the pieces of all splits.

        Args:
            report: report to add pieces that are left out to.
        """

    # properties for models and tasks

    @cached_property
    def tokenizer(self) -> MusicTokenizer:
        """Tokenizer: that of the model in :attr:`inherited`, otherwise the default."""
        stored = self.inherited.get("tokenizer")
        return load_tokenizer(stored) if stored else default_tokenizer()

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return self.tokenizer.size

    def description(self) -> dict[str, Any]:
        """Return what prediction needs to know about the data, as plain data for checkpoints."""
        return {"tokenizer": self.tokenizer.description(), "max_seq_len": self.max_seq_len}

    # preparation

    @cached_property
    def folder(self) -> Path:
        """Folder of the tokens, which does not depend on options that are applied to examples on use."""
        key = {"format": FORMAT, "source": self.source_key(), "tokenizer": self.tokenizer.description()}
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return cache_root(self.cache_dir) / "music" / digest

    def prepare_data(self) -> None:
        """Convert the pieces to tokens, unless the cache is intact. Lightning calls this in one process per machine."""

        def make(work: Path, result: Path) -> Sequence[str]:
            report = Report(self.source)
            return write_pieces(result, self.load_pieces(report), self.tokenizer, report)

        make_folder(self.folder, make)

    def setup(self, stage: str | None = None) -> None:
        """Memory-map the tokens, after preparing them if necessary."""
        if not self.folder.exists():
            self.prepare_data()
        for split in SPLITS:
            sequence = open_sequence(self.folder, split, self.tokenizer)
            if len(sequence):
                self.split_datasets[split] = self.windows(sequence, train=split == "train")

    def windows(self, sequence: TokenSequence, train: bool) -> TrainingWindows | ScoringWindows:
        """Create the dataset of a split."""
        windows = super().windows(sequence, train)
        if not self.transpose or not isinstance(windows, TrainingWindows):
            return windows
        lengths = (windows.num_inputs, windows.num_targets)
        return TransposedWindows(sequence, *lengths, self.seed, self.tokenizer, self.transpose)
