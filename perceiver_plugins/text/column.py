"""Reader of table columns of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.sdk.data.cells import is_missing, text_of
from perceiver_plugins.sdk.data.column_reader import Cell, ColumnOptions, ColumnReader, refuse_other_value
from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.chunks import Collator
from perceiver_plugins.text.data.encoding import DocumentEncoder
from perceiver_plugins.text.data.reports import MAX_UNKNOWN_TEXTS
from perceiver_plugins.text.tokenizer_training import TokenizerTraining
from perceiver_plugins.text.tokenizers import (
    MAX_UNKNOWN,
    byte_offset,
    deserialize_tokenizer,
    load_tokenizer,
    serialize_tokenizer,
    unknown_tokens,
)

NUM_CHANNELS = 64
"""Channels of a token, as in the defaults of small text classifiers (:mod:`perceiver_plugins.text.sizing`)."""

TOKEN_DROPOUT = 0.3
"""Dropout of words and pieces of words, as in those defaults with many classes. Bytes have none."""


@dataclass
class TextCounts:
    """Counts of texts that a reader has read.

    Attributes:
        count: number of texts.
        cut: number of texts that were cut.
        unknown: number of texts that consist mostly of unknown tokens.
        longest: tokens of the longest text.
    """

    count: int = 0
    cut: int = 0
    unknown: int = 0
    longest: int = 0


class TextColumn(ColumnReader):
    """Reader of a column of texts, which are cut to ``max_seq_len`` tokens.

    Args:
        tokenizer: the tokenizer.
        max_seq_len: largest number of tokens of a text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_seq_len: int) -> None:
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len
        self._encoder = DocumentEncoder(tokenizer, words=False)
        self._collator = Collator(int(tokenizer.pad_token_id or 0))
        self._counts = TextCounts()

    @classmethod
    def fit(cls, cells: Sequence[Cell], options: ColumnOptions) -> Self:
        """Create the reader, with a tokenizer that is trained on the texts unless ``options.tokenizer`` names one.

        Raises:
            UserError: if a cell is not text, if there is no text to train the tokenizer on, or if it does not exist.
        """
        training = TokenizerTraining.from_options(options.tokenizer, None)
        if training is None:
            return cls(load_tokenizer(options.tokenizer), options.max_seq_len)
        texts = [text for text in map(_text_of, cells) if text is not None]
        if not texts:
            column = f"the column {cells[0].column!r}" if cells else "the column"
            raise DataError(f"{column} has no text in the training rows (feature_columns leaves it out)")
        return cls(training.train(Piece(text, True) for text in texts), options.max_seq_len)

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        max_seq_len = description["max_seq_len"]
        if type(max_seq_len) is not int or max_seq_len < 1:
            raise ValueError("max_seq_len: must be a whole number of at least 1")
        return cls(deserialize_tokenizer(description["tokenizer"]), max_seq_len)

    def description(self) -> dict[str, Any]:
        return {"tokenizer": serialize_tokenizer(self.tokenizer), "max_seq_len": self.max_seq_len}

    def check_options(self, options: ColumnOptions) -> None:
        refuse_other_value("max_seq_len", options.max_seq_len, self.max_seq_len)

    def encoder_fields(self) -> dict[str, Any]:
        fields = {
            "vocab_size": len(self.tokenizer),
            "max_seq_len": self.max_seq_len,
            "num_input_channels": NUM_CHANNELS,
        }
        has_bytes = byte_offset(self.tokenizer) is not None
        return fields if has_bytes else {**fields, "token_dropout": TOKEN_DROPOUT}

    @property
    def blank(self) -> np.ndarray:
        """One padding token, (1,) int64."""
        return np.array([self.tokenizer.pad_token_id or 0], dtype=np.int64)

    def read(self, cell: Cell) -> np.ndarray | None:
        """Return the first tokens (m,) of a text, integers; None if it is missing or has no tokens."""
        text = _text_of(cell)
        if text is None:
            return None
        (ids,) = self._encoder.rows([text])
        self._counts.count += 1
        self._counts.cut += len(ids) > self.max_seq_len
        self._counts.unknown += bool(len(ids) and unknown_tokens(self.tokenizer, ids).mean() > MAX_UNKNOWN)
        self._counts.longest = max(self._counts.longest, len(ids))
        return ids[: self.max_seq_len].copy() if len(ids) else None

    def collate(self, examples: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Pad tokens on the right to ``input_ids`` and ``attention_mask``, (b, m) int64 each."""
        lengths = np.array([len(ids) for ids in examples])
        inside = np.arange(lengths.max()) < lengths[:, None]
        input_ids = np.zeros(inside.shape, dtype=np.int64)
        input_ids[inside] = np.concatenate(examples)
        return self._collator(input_ids, inside)

    def report(self) -> list[str]:
        counts, self._counts = self._counts, TextCounts()
        lines = []
        if counts.cut:
            lines.append(
                f"{counts.cut:,} of {counts.count:,} texts have up to {counts.longest:,} tokens, of which the first "
                f"{self.max_seq_len:,} are read"
            )
        if counts.unknown > MAX_UNKNOWN_TEXTS * counts.count:
            lines.append(
                f"{counts.unknown:,} of {counts.count:,} texts: more than half of the tokens are unknown to the "
                "tokenizer (are they in its language?)"
            )
        return lines


def _text_of(cell: Cell) -> str | None:
    """Return the text of a cell; None if it is missing.

    Raises:
        DataError: if it is not text.
    """
    return None if is_missing(cell.value) else text_of({cell.column: cell.value}, cell.column, cell.location)
