"""What ``perceiver predict`` does: inputs in batches through a model, and what a task makes of its output."""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import length_hint
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Attentions, Batch
from perceiver_plugins.sdk.prediction.progress import track_progress
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver
from perceiver_registry import UserError

LONGEST_NAME = 40
"""How many characters of an input become part of a file's name."""

Prediction = dict[str, Any]
"""Prediction for one input as plain data by name, which the task chooses: a class, its probability, a text."""

Read = tuple[int, str, Any]
"""An input that was read: its number, what it is called, and the example that the reader made of it."""


class Predictor(ABC):
    """Predicts for a person's inputs. A task implements :meth:`answers`, and :meth:`rows` for tables.

    Args:
        module: the Lightning module, with its weights loaded.
        reader: reads the inputs, as the model's modality needs it.
        batch_size: inputs that go through the model together.
        attention: a folder, made if need be, to draw into what the model looked at in each input: as overlays of
            images, as coloured HTML pages of texts. Null: nothing is drawn.
    """

    def __init__(self, module: LitPerceiver, reader: Reader, batch_size: int = 32, attention: str | None = None):
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        self.module = module
        self.reader = reader
        self.batch_size = batch_size
        self.attention = Path(attention).expanduser() if attention else None
        self.failures: list[str] = []
        """What could not be read, one line each."""

    @abstractmethod
    def answers(self, output: Any, examples: Sequence[Any]) -> list[Prediction]:
        """What the model's output for a batch says of each of its examples."""

    @staticmethod
    @abstractmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """The predictions as rows of a table for people, with as many digits as they need."""

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """The predictions as rows for programs (CSV), each complete in itself, with all digits of numbers."""
        yield from cls.rows(predictions)

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Predicts for each input; those that cannot be read are left out and named in :attr:`failures`.

        Args:
            inputs: what the reader expands to single inputs.

        Raises:
            UserError: if an argument names no input.
        """
        return list(self.stream(inputs))

    @torch.no_grad()
    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Do the same, batch by batch: neither inputs nor predictions are kept.

        Args:
            inputs: what the reader expands to single inputs, as they come.

        Raises:
            UserError: if an argument names no input.
        """
        expand: Any = getattr(self.reader, "sources", None) or (lambda given: iter(self.reader.expand(list(given))))
        sources = expand(inputs)
        total = -(-length_hint(sources) // self.batch_size)  # in batches; 0: unknown
        batches = enumerate(iter(lambda: list(islice(sources, self.batch_size)), []))
        for number, batch in track_progress(batches, total, "Predicting"):
            yield from self._predict_batch(batch, number * self.batch_size)

    def _predict_batch(self, sources: Sequence[str], start: int) -> list[Prediction]:
        read: list[Read] = []
        for number, source in enumerate(sources, start):
            try:
                read.append((number, source, self.reader.read(source)))
            except UserError as error:
                self.failures.append(str(error))
        if not read:
            return []
        examples = [example for _, _, example in read]
        device = self.module.device
        batch = {name: value.to(device) for name, value in self.reader.collate(examples).items()}
        answers = self.answers(self.ask(batch, read), examples)
        return [{"input": source, **answer} for (_, source, _), answer in zip(read, answers, strict=True)]

    def ask(self, batch: Batch, read: Sequence[Read], positions: Tensor | None = None) -> Any:
        """What the model makes of a batch; draws what it looked at, if that is asked for.

        Args:
            batch: the batch, on the model's device.
            read: what it was made of.
            positions: the output places to decode. None: all.
        """
        model: Any = self.module.model
        if self.attention is None:
            return model(batch, positions)
        output, attentions = model(batch, positions, return_attention=True)
        self._draw(attentions, read)
        return output

    def _draw(self, attentions: Attentions, read: Sequence[Read]) -> None:
        assert self.attention is not None
        layers = looked_at(attentions)
        with _folder_of_drawings(self.attention) as folder:
            for index, (number, source, example) in enumerate(read):
                # The input may be a file, or a long text with anything in it.
                name = "-".join(re.findall(r"\w+", Path(source).stem))[:LONGEST_NAME] or "input"
                weights = [layer[index].cpu() for layer in layers]
                self.reader.draw_attention(source, example, weights, folder / f"{number:04d}-{name}")


@contextlib.contextmanager
def _folder_of_drawings(folder: Path) -> Iterator[Path]:
    """Create a folder to draw into within this context; remove it if drawing fails before anything is written.

    Raises:
        UserError: if it cannot be created.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"attention={str(folder)!r}: no folder can be made there: {error.strerror}") from error
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # not empty
            for each in missing:
                each.rmdir()
        raise


def looked_at(attentions: Attentions) -> list[Tensor]:
    """How much the model's answer looked at each place of the input, by way of each of the encoder's cross-attentions.

    A latent counts as much as the decoder looked at it; heads, and output queries, count the same.

    Returns:
        (b, m) for each cross-attention layer, summing to 1.
    """
    of_latents = attentions.decoder.float().mean(dim=(1, 2))
    maps = [torch.einsum("bn,bnm->bm", of_latents, layer.float().mean(dim=1)) for layer in attentions.encoder_cross]
    return [each / each.sum(dim=1, keepdim=True) for each in maps]


def best_classes(logits: Tensor, label_names: Sequence[str], top_k: int) -> list[Prediction]:
    """The most probable classes of each example.

    Args:
        logits: (b, classes).
        label_names: what the classes are called.
        top_k: how many are told, the most probable one first.
    """
    best, numbers = logits.float().softmax(dim=-1).topk(top_k)
    return [
        {
            "label": label_names[row[0]],
            "probability": probabilities[0],
            "top": [
                {"label": label_names[number], "probability": probability}
                for number, probability in zip(row, probabilities, strict=True)
            ],
        }
        for row, probabilities in zip(numbers.tolist(), best.tolist(), strict=True)
    ]


def class_record(prediction: Prediction) -> dict[str, Any]:
    """The classes that :func:`best_classes` finds for an input, as a row for programs."""
    return {"input": prediction["input"], **numbered(prediction["top"])}


def class_row(prediction: Prediction) -> dict[str, str]:
    """The same, as a row of a table for people."""
    return {
        name: f"{value:.4f}" if isinstance(value, float) else value for name, value in class_record(prediction).items()
    }


def numbered(guesses: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Guesses side by side: "label", "probability", "label 2", "probability 2", and so on."""
    return {
        f"{name} {rank}" if rank > 1 else name: value
        for rank, guess in enumerate(guesses, start=1)
        for name, value in guess.items()
    }
