"""Predictions of the multimodal autoencoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Batch
from perceiver_plugins.multimodal.adapters import LABEL
from perceiver_plugins.multimodal.data.files import write_clip
from perceiver_plugins.multimodal.data.format import from_batch
from perceiver_plugins.multimodal.decoding import reconstruct
from perceiver_plugins.multimodal.lightning import LitMultimodalAutoencoder
from perceiver_plugins.multimodal.reading import ClipReader
from perceiver_plugins.sdk.prediction.predictor import (
    Prediction,
    Predictor,
    Read,
    best_classes,
    class_record,
    class_row,
)
from perceiver_registry import UserError


class ClipPredictor(Predictor):
    """Predict the class of each clip, and optionally write its reconstruction.

    Args:
        module: the autoencoder.
        reader: reads the clips.
        top_k: number of classes to show, most probable first.
        reconstructions: folder for the reconstructed clips (.mp4), created if missing. Null: do not reconstruct.
        batch_size: clips per batch.
        attention: folder for images of the model's attention to each clip, created if missing. Null: do not draw.
    """

    module: LitMultimodalAutoencoder
    reader: ClipReader

    def __init__(
        self,
        module: LitMultimodalAutoencoder,
        reader: ClipReader,
        top_k: int = 3,
        reconstructions: str | None = None,
        batch_size: int = 4,
        attention: str | None = None,
    ):
        super().__init__(module, reader, batch_size, attention)
        if top_k < 1:
            raise UserError(f"top_k={top_k} must be at least 1")
        self.label_names = module.label_names
        self.top_k = min(top_k, len(self.label_names))
        self.reconstructions = Path(reconstructions).expanduser() if reconstructions else None

    def ask(
        self, batch: Batch, read: Sequence[Read], positions: Tensor | None = None
    ) -> tuple[Tensor, list[str] | None]:
        """Return the logits of the label, and the paths of the reconstructions if they are requested."""
        adapter = self.module.adapter
        label = torch.tensor([[adapter.slices[LABEL].start]], device=self.module.device).expand(len(read), 1)
        logits = super().ask(batch, read, label)[:, 0, adapter.channels[LABEL]]
        return logits, None if self.reconstructions is None else self._reconstruct(batch, read)

    def _reconstruct(self, batch: Batch, read: Sequence[Read]) -> list[str]:
        """Reconstruct the clips, write them, and return the paths of the files."""
        assert self.reconstructions is not None
        try:
            self.reconstructions.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"reconstructions={str(self.reconstructions)!r}: the folder cannot be created ({error.strerror})"
            ) from error
        reconstruction = reconstruct(self.module.model, batch, self.module.chunk_size)  # type: ignore[arg-type]
        clips = from_batch(reconstruction.pixel_values_videos, reconstruction.input_values)
        files = [self.reconstructions / f"{number:04d}-{Path(source).stem}.mp4" for number, source, _ in read]
        for file, clip in zip(files, clips, strict=True):
            write_clip(file, clip, self.reader.clip_format)
        return [str(file) for file in files]

    def answers(self, output: tuple[Tensor, list[str] | None], examples: Sequence[Any]) -> list[Prediction]:
        logits, files = output
        predictions = best_classes(logits, self.label_names, self.top_k)
        if files is None:
            return predictions
        return [{**prediction, "reconstruction": file} for prediction, file in zip(predictions, files, strict=True)]

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        return (class_row(prediction) | _reconstruction(prediction) for prediction in predictions)

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        return (class_record(prediction) | _reconstruction(prediction) for prediction in predictions)


def _reconstruction(prediction: Prediction) -> dict[str, str]:
    return {name: prediction[name] for name in ("reconstruction",) if name in prediction}
