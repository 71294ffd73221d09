"""Continuation of pieces of music."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_core import Batch
from perceiver_plugins.generation.prediction import GenerationPredictor
from perceiver_plugins.music.lightning import LitMusicModel
from perceiver_plugins.music.midi_files import SUFFIXES
from perceiver_plugins.music.notes import Notes
from perceiver_plugins.music.output import NAMED_SUFFIXES, OUTPUT_SUFFIXES, write_music
from perceiver_plugins.music.reading import MidiReader
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.predictor import MAX_FILE_STEM, Prediction, Read
from perceiver_registry import UserError

FOLDER_SUFFIXES = (SUFFIXES[0], ".wav", ".png")
"""Suffixes of the files that are written to a folder for each continuation."""


class MusicPredictor(GenerationPredictor):
    """Predictor of the music that continues each prompt, a MIDI file or nothing.

    A continuation depends on its prompt, the seed and the number of the prompt, not on the others of a batch.

    Args:
        module: the causal model of music, with its weights loaded.
        reader: reader of prompts, with the tokenizer that the model was trained with.
        output: file to write the prompt and its continuation to: MIDI (.mid), sound (.wav) or a piano roll (.png). Or a
            folder, which is created if it does not exist, for all three of each continuation. Null: nothing is written.
        overwrite: replace existing files.
        max_new_tokens: largest number of tokens to generate. A note has three to five tokens.
        temperature: divisor of the logits; less than 1: more probable tokens. 0: the most probable token each time.
        top_k: number of most probable tokens to choose from. Null: all.
        top_p: choose from the fewest most probable tokens whose probabilities sum to at least this. Null: all.
        repetition_penalty: divisor of the positive logits, and factor of the negative ones, of tokens so far.
        seed: seed of the samples. Null: other samples each time.
        num_return_sequences: continuations of each prompt. With beams, the best ones, ``num_beams`` or less.
        num_beams: continuations that beam search extends at the same time. 1: no beam search.
        length_penalty: power of the number of tokens, by which beam search divides the log-probability of a
            continuation that has ended. Greater than 0: longer ones rank higher.
        early_stopping: beam search stops when ``num_beams`` continuations have ended, although others may rank higher.
        batch_size: prompts per batch.
    """

    module: LitMusicModel
    reader: MidiReader

    def __init__(
        self,
        module: LitMusicModel,
        reader: MidiReader,
        output: str | None = None,
        overwrite: bool = False,
        max_new_tokens: int = 1000,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        repetition_penalty: float = 1.0,
        seed: int | None = None,
        num_return_sequences: int = 1,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
        batch_size: int = 32,
    ):
        super().__init__(
            module,
            reader,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            num_return_sequences=num_return_sequences,
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            batch_size=batch_size,
        )
        self.output = Path(output).expanduser() if output else None
        if self.output is not None and self.output.suffix and not (self._is_file or self.output.is_dir()):
            raise UserError(
                f"--output={output}: the kind {self.output.suffix} is unknown (write {NAMED_SUFFIXES}, or a folder)"
            )
        self.overwrite = overwrite

    @property
    def stop_ids(self) -> Collection[int]:
        return {self.reader.tokenizer.bos, self.reader.tokenizer.eos}

    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Continue each prompt, batch by batch, and write the files.

        Args:
            inputs: MIDI files, folders and archives of them; an empty name is an empty prompt.

        Raises:
            UserError: if an input names no file, or if the output cannot be written.
        """
        inputs = list(inputs)
        if self.output is not None:
            sources = self.reader.expand(inputs)
            self._check_output(sources)
        return super().stream(inputs)

    def _check_output(self, sources: Sequence[str]) -> None:
        """Check that the files can be written, and create their folder.

        Raises:
            UserError: if they cannot be written.
        """
        assert self.output is not None
        count = len(sources) * self.num_return_sequences
        if self._is_file and count > 1:
            raise UserError(f"--output={self.output}: one file for {count} continuations (give a folder)")
        for number, source in enumerate(sources):
            for index in range(self.num_return_sequences):
                for path in self._paths(number, source, index):
                    if path.exists() and not self.overwrite:
                        raise UserError(f"--output={path}: already exists (--overwrite replaces it)")
        folder = self.output.parent if self._is_file else self.output
        if self._is_file and not folder.is_dir():
            raise UserError(f"--output={self.output}: its folder does not exist (create it first)")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output={folder}: the folder cannot be created ({error.strerror})") from error

    @property
    def _is_file(self) -> bool:
        return self.output is not None and self.output.suffix.lower() in OUTPUT_SUFFIXES

    def _paths(self, number: int, source: str, index: int) -> list[Path]:
        """Return the paths of the files of a continuation.

        Args:
            number: number of the prompt.
            source: the prompt's file.
            index: number of the continuation of the prompt.
        """
        if self.output is None:
            return []
        if self._is_file:
            return [self.output]
        stem = "-".join(re.findall(r"\w+", Path(source).stem))[:MAX_FILE_STEM] or "music"
        copy = f"-{index + 1}" if self.num_return_sequences > 1 else ""
        return [self.output / f"{number:04d}-{stem}{copy}{suffix}" for suffix in FOLDER_SUFFIXES]

    def ask(self, batch: Batch, read: Sequence[Read], positions: Any = None) -> list[Prediction]:
        """Continue the prompts of a batch, and write the files.

        Args:
            batch: the batch, on the model's device.
            read: the prompts.
            positions: not used.

        Returns:
            A prediction for each prompt.
        """
        return [
            self._describe(each, [tokens.numpy() for tokens in generated])
            for each, generated in zip(read, self.generate(batch, read), strict=True)
        ]

    def _describe(self, read: Read, generated: Sequence[np.ndarray]) -> Prediction:
        """Decode and write the continuations of a prompt."""
        number, source, prompt = read
        tokenizer = self.reader.tokenizer
        before = tokenizer.decode(prompt)
        continuations = []
        for index, tokens in enumerate(generated):
            notes = tokenizer.decode(np.concatenate([prompt, tokens]))
            paths = self._paths(number, source, index)
            for path in paths:
                self._write(path, notes, before.duration if before.size else None)
            continuations.append(
                {
                    "new_notes": notes.size - before.size,
                    "seconds": notes.duration,
                    "files": [str(path) for path in paths if path.exists()],
                    "notes": _plain(notes),
                }
            )
        return {"prompt_notes": before.size, "prompt_seconds": before.duration, "continuations": continuations}

    def _write(self, path: Path, notes: Notes, mark: float | None) -> None:
        """Write a file. What cannot be drawn or played is left out of a folder, with a warning.

        Raises:
            UserError: if it cannot be written.
        """
        try:
            write_music(path, notes, mark)
        except DataError as error:
            if isinstance(error.__cause__, OSError):
                raise
            if self._is_file:
                raise UserError(f"--output={path}: {error}") from error
            rank_zero_warn(f"{path}: left out: {error}")

    def answers(self, output: Sequence[Prediction], examples: Sequence[Any]) -> list[Prediction]:
        return list(output)

    @classmethod
    def rows(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Yield one row per continuation."""
        for record in cls.records(predictions):
            yield {name: f"{value:.1f}" if isinstance(value, float) else str(value) for name, value in record.items()}

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """Yield one row per continuation."""
        for prediction in predictions:
            for number, continuation in enumerate(prediction["continuations"], start=1):
                yield {
                    "input": prediction["input"],
                    "number": number,
                    "prompt notes": prediction["prompt_notes"],
                    "new notes": continuation["new_notes"],
                    "seconds": continuation["seconds"],
                    "files": " ".join(continuation["files"]),
                }


def _plain(notes: Notes) -> list[dict[str, Any]]:
    """Return notes as plain data."""
    names = ("onset", "end", "pitch", "velocity", "is_percussion")
    columns = (column.tolist() for column in notes)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
