"""Base class of predictors, which run a model on inputs in batches and return one prediction per input."""

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
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from perceiver_core import Attentions, Batch, Model
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.evaluation_mode import evaluating
from perceiver_plugins.sdk.prediction.progress import track_progress
from perceiver_plugins.sdk.prediction.reader import InMemory, Reader
from perceiver_plugins.sdk.tasks.batches import entries
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver
from perceiver_registry import UserError
from perceiver_registry.assemble import require_perceiver_io

MAX_FILE_STEM = 40
"""Largest number of characters of an input in the name of an output file. Arbitrary."""

SHAPE_ERRORS = (ValueError, RuntimeError)
"""Errors of collate functions and models for inputs of unsupported shapes."""

DEVICE_ERRORS = (torch.OutOfMemoryError, getattr(torch, "AcceleratorError", torch.OutOfMemoryError))
"""Device errors: subclasses of RuntimeError that end the prediction. Older versions of torch lack AcceleratorError."""

Prediction = dict[str, Any]
"""Prediction for one input: plain data by name, such as a class, its probability or a text. The task names them."""

Read = tuple[int, str, Any]
"""Index of an input among all inputs, its source, and the example that the reader returned for it."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Name of each entry of a batch, and its shape without the batch dimension."""


class Predictor(ABC):
    """Base class of predictors. A task implements :meth:`answers`, and :meth:`rows` for tables.

    Args:
        module: the Lightning module, with its weights loaded.
        reader: the reader of the model's input adapter.
        batch_size: inputs per batch.
        attention: folder to draw the attention maps of each input into: overlays of images, coloured HTML pages of
            texts. It is created if it does not exist. Null: no maps.
    """

    _progress_label = "Predicting"

    def __init__(self, module: LitPerceiver, reader: Reader, batch_size: int = 32, attention: str | None = None):
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be at least 1")
        self.module = module
        self.reader = reader
        self.batch_size = batch_size
        if attention and isinstance(module.model, Model):
            require_perceiver_io(module.model.config, "--attention")
        self.attention = Path(attention).expanduser() if attention else None
        self.failures: list[str] = []
        """One line for each input that could not be read or predicted."""
        self._predicted_shapes: set[Shapes] = set()

    @abstractmethod
    def answers(self, output: Any, examples: Sequence[Any]) -> list[Prediction]:
        """Convert the model's output for a batch to one prediction per example."""

    @staticmethod
    @abstractmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Format predictions as rows of the printed table, with rounded numbers."""

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """Format predictions as rows of a CSV file, with the same columns in each row and unrounded numbers."""
        yield from cls.rows(predictions)

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Predict for each input. Inputs that cannot be read or predicted are reported in :attr:`failures`.

        Args:
            inputs: arguments that the reader expands to single inputs.

        Raises:
            UserError: if an argument names no input.
        """
        return list(self.stream(inputs))

    @torch.no_grad()
    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Predict batch by batch, as :meth:`predict` does, without keeping inputs or predictions in memory.

        The model is in evaluation mode while it predicts.

        Args:
            inputs: arguments that the reader expands to single inputs.

        Raises:
            UserError: if an argument names no input.
        """
        sources = self._sources(inputs)
        total = -(-length_hint(sources) // self.batch_size)  # in batches; 0: unknown
        batches = enumerate(iter(lambda: list(islice(sources, self.batch_size)), []))
        for number, batch in track_progress(batches, total, self._progress_label):
            with evaluating(self.module.model):
                predictions = self._predict_batch(batch, number * self.batch_size)
            yield from predictions
        finish: Any = getattr(self.reader, "finish", None)  # not of readers without the base class
        if finish is not None:
            finish()

    def _sources(self, inputs: Iterable[str]) -> Iterator[str]:
        """Expand arguments to single inputs; inputs in memory are not expanded."""
        if isinstance(inputs, Sequence) and any(isinstance(each, InMemory) for each in inputs):
            known = ([each] if isinstance(each, InMemory) else self.reader.expand([each]) for each in inputs)
            return iter([source for sources in known for source in sources])
        expand: Any = getattr(self.reader, "sources", None) or (lambda given: iter(self.reader.expand(list(given))))
        expanded: Iterator[str] = expand(inputs)
        return expanded

    def _predict_batch(self, sources: Sequence[str], start: int) -> list[Prediction]:
        read: list[Read] = []
        failures: dict[int, str] = {}
        for number, source in enumerate(sources, start):
            try:
                read.append((number, source, self.reader.read(source)))
            except UserError as error:
                failures[number] = str(error)
        predictions, rejected = self._predict_read(read)
        for (number, source, example), cause in rejected:
            self._raise_if_shape_is_known(example, cause)
            failures[number] = f"{shorten_path(source)}: the model does not support this input ({one_line(cause)})"
        self.failures += [failures[number] for number in sorted(failures)]
        return [predictions[number] for number in sorted(predictions)]

    def _predict_read(self, read: Sequence[Read]) -> tuple[dict[int, Prediction], list[tuple[Read, Exception]]]:
        """Predict for inputs that were read.

        Returns:
            Predictions by the inputs' numbers, and the inputs that failed with their errors.
        """
        if not read:
            return {}, []
        examples = [example for _, _, example in read]
        try:
            batch = self.reader.collate(examples)
        except (UserError, *SHAPE_ERRORS) as error:
            return self._predict_apart(read, error)
        try:
            output = self.ask(move_data_to_device(batch, self.module.device), read)
            if isinstance(output, Tensor) and not output.isfinite().all():
                raise ValueError("its output is not finite")
        except DEVICE_ERRORS:
            raise
        except SHAPE_ERRORS as error:
            return self._predict_apart(read, error)
        self._predicted_shapes.add(_shapes(batch))
        answers = zip(read, self.answers(output, examples), strict=True)
        return {number: {"input": source, **answer} for (number, source, _), answer in answers}, []

    def _predict_apart(
        self, read: Sequence[Read], error: Exception
    ) -> tuple[dict[int, Prediction], list[tuple[Read, Exception]]]:
        """Predict for the inputs of a failed batch again, grouped by shape or, if they have one shape, one by one.

        Args:
            read: the inputs.
            error: the error of their batch.
        """
        if len(read) == 1:
            return {}, [(read[0], error)]
        groups: dict[Shapes | None, list[Read]] = {}
        for each in read:
            groups.setdefault(self._shapes_of(each[2]), []).append(each)
        predictions: dict[int, Prediction] = {}
        rejected: list[tuple[Read, Exception]] = []
        for group in groups.values() if len(groups) > 1 else [[each] for each in read]:
            found, failed = self._predict_read(group)
            predictions |= found
            rejected += failed
        return predictions, rejected

    def _shapes_of(self, example: Any) -> Shapes | None:
        """Return the shapes of a batch of this example alone; None if it cannot be collated."""
        try:
            return _shapes(self.reader.collate([example]))
        except (UserError, *SHAPE_ERRORS):
            return None

    def _raise_if_shape_is_known(self, example: Any, error: Exception) -> None:
        """Raise the error of an input unless its shape is the likely cause.

        Collate functions and models raise UserError and ValueError for unsupported inputs. Other errors are attributed
        to the shape only if inputs of other shapes, and none of this shape, were predicted.
        """
        is_known = not self._predicted_shapes or self._shapes_of(example) in self._predicted_shapes
        if is_known and not isinstance(error, UserError | ValueError):
            raise error

    def ask(self, batch: Batch, read: Sequence[Read], positions: Tensor | None = None) -> Any:
        """Compute the model's output for a batch. With :attr:`attention`, draw the attention maps as well.

        Args:
            batch: the batch, on the model's device.
            read: the inputs of the batch.
            positions: output positions to decode. None: all.
        """
        model: Any = self.module.model
        if self.attention is None:
            return model(batch, positions)
        output, attentions = model(batch, positions, return_attention=True)
        self._draw(attentions, read)
        return output

    def _draw(self, attentions: Attentions, read: Sequence[Read]) -> None:
        assert self.attention is not None
        layers = input_attention(attentions)
        with _drawing_folder(self.attention) as folder:
            for index, (number, source, example) in enumerate(read):
                # The input may be a file, or a long text with any characters.
                stem = "-".join(re.findall(r"\w+", Path(source).stem))[:MAX_FILE_STEM] or "input"
                weights = [layer[index].cpu() for layer in layers]
                self.reader.draw_attention(source, example, weights, folder / f"{number:04d}-{stem}")


def _shapes(batch: Batch) -> Shapes:
    return tuple((name, tuple(value.shape[1:])) for name, value in entries(batch))


@contextlib.contextmanager
def _drawing_folder(folder: Path) -> Iterator[Path]:
    """Create a folder to draw into; remove it if drawing fails before anything is written.

    Raises:
        UserError: if it cannot be created.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"attention={str(folder)!r}: the folder cannot be created ({error.strerror})") from error
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # not empty
            for each in missing:
                each.rmdir()
        raise


def input_attention(attentions: Attentions) -> list[Tensor]:
    """Attention rollout from the outputs to the input positions, for each of the encoder's cross-attention layers.

    Each latent is weighted by the decoder's attention to it. Weights are averaged over heads and output queries.

    Returns:
        (b, m) for each cross-attention layer, summing to 1.
    """
    of_latents = attentions.decoder.float().mean(dim=(1, 2))
    maps = [torch.einsum("bn,bnm->bm", of_latents, layer.float().mean(dim=1)) for layer in attentions.encoder_cross]
    return [each / each.sum(dim=1, keepdim=True) for each in maps]


def best_classes(logits: Tensor, label_names: Sequence[str], top_k: int) -> list[Prediction]:
    """Select the most probable classes of each example.

    Args:
        logits: (b, classes).
        label_names: names of the classes, by index.
        top_k: number of classes to select, the most probable one first.
    """
    best, indices = logits.float().softmax(dim=-1).topk(top_k)
    return [
        {
            "label": label_names[row[0]],
            "probability": probabilities[0],
            "top": [
                {"label": label_names[index], "probability": probability}
                for index, probability in zip(row, probabilities, strict=True)
            ],
        }
        for row, probabilities in zip(indices.tolist(), best.tolist(), strict=True)
    ]


def present_classes(logits: Tensor, label_names: Sequence[str], top_k: int, threshold: float) -> list[Prediction]:
    """Select the classes of each example of a multi-label model: ``labels`` above the threshold, and the ``top`` k.

    Args:
        logits: (b, classes), whose sigmoids are the probabilities.
        label_names: names of the classes, by index.
        top_k: number of classes in ``top``, the most probable one first.
        threshold: probability above which a class is in ``labels``, the most probable one first.
    """
    ranked, indices = logits.float().sigmoid().sort(dim=-1, descending=True, stable=True)
    predictions = []
    for row, probabilities in zip(indices.tolist(), ranked.tolist(), strict=True):
        classes = [
            {"label": label_names[index], "probability": probability}
            for index, probability in zip(row, probabilities, strict=True)
        ]
        labels = [each for each in classes if each["probability"] > threshold]
        predictions.append({"labels": labels, "top": classes[:top_k]})
    return predictions


def class_record(prediction: Prediction) -> dict[str, Any]:
    """Format the prediction of :func:`best_classes` or :func:`present_classes` as a row of a CSV file."""
    several = {"labels": join_labels(each["label"] for each in prediction["labels"])} if "labels" in prediction else {}
    return {"input": prediction["input"], **several, **number_columns(prediction["top"])}


def join_labels(names: Iterable[str]) -> str:
    """Join the names of classes by commas, those with commas or quotes in quotes, as in a CSV file."""
    quoted = ('"{}"'.format(name.replace('"', '""')) if {",", '"'}.intersection(name) else name for name in names)
    return ", ".join(quoted)


def class_row(prediction: Prediction) -> dict[str, str]:
    """Format the prediction of :func:`best_classes` or :func:`present_classes` as a row of the printed table."""
    return {
        name: f"{value:.4f}" if isinstance(value, float) else value for name, value in class_record(prediction).items()
    }


def number_columns(ranked: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge ranked results into one row: "label", "probability", "label 2", "probability 2", and so on."""
    return {
        f"{name} {rank}" if rank > 1 else name: value
        for rank, result in enumerate(ranked, start=1)
        for name, value in result.items()
    }
