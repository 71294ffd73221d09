"""Predictor of embeddings, for models of any task."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from perceiver_core import Batch, Model, PerceiverAR
from perceiver_core.model import Pool
from perceiver_plugins.sdk.data.missing_files import shorten_path
from perceiver_plugins.sdk.evaluation_mode import evaluating
from perceiver_plugins.sdk.prediction.predictor import Prediction, Predictor, Read
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.sdk.tasks.batches import entries
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver
from perceiver_registry import UserError
from perceiver_registry.errors import shorten

NUM_SHOWN = 4
"""Numbers of an embedding in the printed table. Arbitrary."""


class Journal(Protocol):
    """Store of the embeddings that an interrupted run has computed, by batch."""

    def find(self, key: str) -> list[np.ndarray] | None:
        """Return the embeddings of a batch, or None if they are missing."""

    def record(self, key: str, embeddings: Sequence[np.ndarray]) -> None:
        """Record the embeddings of a batch."""


class EmbeddingPredictor(Predictor):
    """Predictor of the embedding of each input, for models of any task.

    A prediction has an ``embedding``, a numpy array of float32: (d), or (n, d) without pooling. With ``similar_to``,
    the predictions are the most similar inputs, with their ``similarity``, the cosine of the embeddings.

    For sequences longer than its window, a causal model embeds the last ``max_seq_len`` inputs, with a single warning.

    Args:
        module: the Lightning module, with its weights loaded.
        reader: the reader of the model's input adapter.
        pool: "mean": the mean of the latents. "none": all latents.
        similar_to: return the inputs most similar to this one, instead of embeddings. Null: return embeddings.
        top_k: number of most similar inputs, the most similar one first. Null: 10.
        batch_size: inputs per batch.

    Raises:
        UserError: if an argument is invalid, the model's architecture has no embeddings, or ``similar_to`` cannot be
            read.
    """

    _progress_label = "Embedding"

    def __init__(
        self,
        module: LitPerceiver,
        reader: Reader,
        pool: Pool = "mean",
        similar_to: str | None = None,
        top_k: int | None = None,
        batch_size: int = 32,
    ):
        super().__init__(module, reader, batch_size)
        model = module.model
        if not isinstance(model, Model) or type(model).encode is Model.encode:
            raise UserError(f"{type(model).__name__}: this architecture has no embeddings (it does not define encode)")
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k={top_k} must be at least 1")
        if top_k is not None and similar_to is None:
            raise UserError("top_k: has no effect without similar_to (give both)")
        if pool != "mean" and similar_to is not None:
            raise UserError(f"pool={pool}: similar_to compares means (leave out one of the two)")
        self.model = model
        self.pool: Pool = pool
        self.top_k = top_k or 10
        self.journal: Journal | None = None
        """Journal that provides and records embeddings. None: compute all."""
        self._has_warned = False
        self._reference = None if similar_to is None else self._embed_reference(similar_to)

    def stream(self, inputs: Iterable[str]) -> Iterator[Prediction]:
        """Embed batch by batch, or return the most similar inputs after all are embedded.

        Args:
            inputs: arguments that the reader expands to single inputs.

        Raises:
            UserError: if an argument names no input.
        """
        predictions = super().stream(inputs)
        return predictions if self._reference is None else self.most_similar(predictions)

    def ask(self, batch: Batch, read: Sequence[Read], positions: Tensor | None = None) -> list[np.ndarray]:
        """Embed a batch.

        Args:
            batch: the batch, on the model's device.
            read: the inputs of the batch.
            positions: not used.

        Returns:
            The embedding of each input. Without pooling, latents of padding are left out.

        Raises:
            ValueError: if an embedding is not finite.
        """
        batch = self._window(batch, read)
        if self.journal is None:
            return self._embed(batch)
        key = digest(batch)
        embeddings = self.journal.find(key)
        if embeddings is None or len(embeddings) != len(read) or not all(map(self._is_embedding, embeddings)):
            embeddings = self._embed(batch)
            self.journal.record(key, embeddings)
        return embeddings

    def _is_embedding(self, array: np.ndarray) -> bool:
        """Return whether an array of the journal has the rank and width of the model's embeddings, and is finite."""
        width = getattr(self.model.config, "num_latent_channels", None)  # architectures of plugins may lack it
        rank = 1 if self.pool == "mean" else 2
        has_shape = array.ndim == rank and array.size > 0 and width in (None, array.shape[-1])
        return has_shape and bool(np.isfinite(array).all())

    def _embed(self, batch: Batch) -> list[np.ndarray]:
        embeddings = self.model.embed(batch, self.pool)
        if not embeddings.isfinite().all():
            raise ValueError("its embedding is not finite")
        pad_mask = None if self.pool == "mean" else self.model.latent_pad_mask(batch)
        arrays = list(embeddings.float().cpu().numpy())
        if pad_mask is None:
            return arrays
        return [array[real] for array, real in zip(arrays, (~pad_mask).cpu().numpy(), strict=True)]

    def answers(self, output: Sequence[np.ndarray], examples: Sequence[Any]) -> list[Prediction]:
        return [{"embedding": embedding} for embedding in output]

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Yield one row per input: the first numbers of its embedding and the shape, or its similarity."""
        for prediction in predictions:
            if "similarity" in prediction:
                yield {"input": prediction["input"], "similarity": f"{prediction['similarity']:.4f}"}
                continue
            embedding = prediction["embedding"]
            numbers = " ".join(f"{number:.4f}" for number in embedding.flatten()[:NUM_SHOWN])
            shape = " x ".join(map(str, embedding.shape))
            yield {"input": prediction["input"], f"embedding (first {NUM_SHOWN})": numbers, "shape": shape}

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """Yield one row per input, with a column for each number of a pooled embedding."""
        for prediction in predictions:
            if "similarity" in prediction:
                yield prediction
                continue
            numbers = prediction["embedding"].astype(str).tolist()  # shortest decimals that restore each float32
            yield {"input": prediction["input"], **{f"embedding_{index}": each for index, each in enumerate(numbers)}}

    @torch.no_grad()
    def _embed_reference(self, name: str) -> np.ndarray:
        """Embed the input to compare with.

        Raises:
            UserError: if it is not a single input, or cannot be read.
        """
        try:
            sources = self.reader.expand([name])
        except UserError as error:
            raise UserError(f"similar_to={shorten(name)}: {error}") from error
        if len(sources) != 1:
            raise UserError(f"similar_to={shorten(name)}: must name one input, got {len(sources)}")
        with evaluating(self.model):
            predictions = self._predict_batch(sources, 0)
        if not predictions:
            raise UserError(f"similar_to={shorten(name)}: {self.failures[0]}")
        embedding: np.ndarray = predictions[0]["embedding"]
        return embedding

    def most_similar(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Return the inputs most similar to ``similar_to`` among embedded ones, the most similar one first."""
        assert self._reference is not None
        yield from most_similar(predictions, self._reference, self.top_k)

    def _window(self, batch: Batch, read: Sequence[Read]) -> Batch:
        """Crop a batch of sequences to its last inputs if it is longer than a causal model's window."""
        model = self.model
        size = model.config.max_seq_len if isinstance(model, PerceiverAR) else None
        if size is None or self.reader.padding_side != "left" or _length(batch) <= size:
            return batch
        if not self._has_warned:
            self._has_warned = True
            source = next(source for _, source, example in read if _length(self.reader.collate([example])) > size)
            rank_zero_warn(
                f"{shorten_path(source)}: longer than the model's window: only its last {size:,} tokens are embedded "
                "(not repeated for other long inputs)"
            )
        return {name: value[:, -size:] for name, value in batch.items()}


def _length(batch: Batch) -> int:
    """Return the number of inputs m of a batch of sequences, padding included."""
    return int(next(iter(batch.values())).shape[1])


def digest(batch: Batch) -> str:
    """Return a digest of the content of a batch."""
    found = hashlib.sha256()
    for name, value in sorted(entries(batch)):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def most_similar(predictions: Iterable[Prediction], reference: np.ndarray, top_k: int) -> list[Prediction]:
    """Find the embedded inputs most similar to a reference.

    Args:
        predictions: inputs with their embeddings (d).
        reference: embedding (d) to compare with.
        top_k: number of inputs to return.

    Returns:
        The ``input`` and the ``similarity``, a cosine, of each input found, the most similar one first.
    """
    found = (
        {"input": prediction["input"], "similarity": cosine(prediction["embedding"], reference)}
        for prediction in predictions
    )
    return heapq.nlargest(top_k, found, key=lambda each: each["similarity"])


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    """Return the cosine of two vectors; 0 if one of them is zero."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm else 0.0
