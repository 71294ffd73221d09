"""Reader of MIDI files for ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.music.midi_files import SUFFIXES, read_midi, write_midi
from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.tokens import default_tokenizer, load_tokenizer
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.file_reader import FileReader
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry.errors import UserError


class MidiReader(FileReader):
    """Reader of MIDI files as prompts: the token that begins a piece, if there is one, and the tokens of the notes.

    An empty name is an empty prompt. What is left out of a file is reported.

    Args:
        data: description of the training data from the checkpoint: ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on music, or has another number of tokens.
    """

    suffixes = SUFFIXES
    noun = "MIDI files"
    padding_side: Literal["left", "right"] = "left"

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        self.tokenizer = load_tokenizer(data.get("tokenizer"))
        embedding: Any = getattr(input_adapter, "token_embedding", None)
        if embedding is not None and embedding.num_embeddings != self.tokenizer.size:
            raise UserError(
                f"tokenizer: it has {self.tokenizer.size} tokens, the model {embedding.num_embeddings} (the checkpoint "
                "is damaged)"
            )

    @classmethod
    def example(cls, input_adapter: InputAdapter, folder: Path) -> tuple[Reader, list[str]]:
        names = [str(folder / f"{count}.mid") for count in (2, 5)]
        for count, name in zip((2, 5), names, strict=True):
            rows = [(index / 4, (index + 1) / 4, 60 + index, 64, False) for index in range(count)]
            write_midi(name, Notes.from_rows(rows))
        return cls({"tokenizer": default_tokenizer().description()}, input_adapter), names

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """Expand folders, zip archives and patterns to MIDI files. Empty names remain.

        Raises:
            UserError: if a folder or archive has no MIDI file, or if a pattern has no match.
        """
        expand = super().expand
        return [source for name in inputs for source in (expand([name]) if name else [""])]

    def read(self, source: str) -> np.ndarray:
        """Read a file, or an empty prompt.

        Raises:
            UserError: if it is missing, not a valid MIDI file, or has no tokens.
        """
        return super().read(source) if source else self._prompt([], "an empty prompt")

    def decode(self, content: bytes, name: str) -> np.ndarray:
        """Convert the notes of a file to tokens (m,), int64, after the token that begins a piece, if there is one.

        Raises:
            DataError: if it is not a valid MIDI file, or has no tokens.
        """
        midi = read_midi(content, name, self.tokenizer.reads_pedals)
        tokens, changes = self.tokenizer.encode(midi.notes)
        for reason, count in (*midi.changes.items(), *changes.items()):
            rank_zero_warn(f"{name}: {count:,} {reason}")
        return self._prompt(tokens.tolist(), name)

    def _prompt(self, tokens: list[int], name: str) -> np.ndarray:
        """Return the tokens of a prompt.

        Raises:
            DataError: if the prompt would be empty.
        """
        begin = [self.tokenizer.bos] if self.tokenizer.bos_begins_prompts else []
        if not begin and not tokens:
            raise DataError(f"{name}: no notes (this model continues notes and cannot begin a piece)")
        return np.array([*begin, *tokens], np.int64)

    def collate(self, examples: Sequence[np.ndarray]) -> Batch:
        """Return ``input_ids`` and ``attention_mask`` (1: token, 0: padding), (b, m) int64, padded on the left."""
        longest = max(map(len, examples))
        ids = np.full((len(examples), longest), self.tokenizer.pad, np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(examples):
            ids[row, longest - len(tokens) :] = tokens
            mask[row, longest - len(tokens) :] = 1
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def tokens(self, example: np.ndarray) -> list[str]:
        """Name each token of an example, such as "NoteOn_60"."""
        return [self.tokenizer.names[token] for token in example.tolist()]
