"""What a serving side gets from a model: tensors with names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import Batch, PerceiverIO
from perceiver_plugins.classification.adapters import (
    ClassificationOutputAdapter,
    RegressionOutputAdapter,
    TokenClassificationOutputAdapter,
)
from perceiver_plugins.flow.adapters import OpticalFlowOutputAdapter
from perceiver_plugins.multimodal.decoding import reconstruct
from perceiver_plugins.multimodal.output import AudioVideoLabelOutputAdapter
from perceiver_plugins.serving.batches import entries
from perceiver_plugins.text.adapters import TextInputAdapter, TextOutputAdapter, TiedTextOutputAdapter

OF_TOKENS = (TextOutputAdapter, TiedTextOutputAdapter)

NAMES: tuple[tuple[type, str], ...] = (
    (ClassificationOutputAdapter, "logits"),
    (TokenClassificationOutputAdapter, "logits"),
    (TextOutputAdapter, "logits"),
    (TiedTextOutputAdapter, "logits"),
    (RegressionOutputAdapter, "predictions"),
    (OpticalFlowOutputAdapter, "flow"),
)
"""What the one tensor that an output adapter returns is called; those of others are "output"."""


class ServedModel(nn.Module):
    """A model as a serving side sees it: a batch in, tensors with names out (:func:`answer`).

    Args:
        model: the model.
    """

    def __init__(self, model: PerceiverIO):
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return answer(self.model, batch)


def answer(model: PerceiverIO, batch: Batch) -> dict[str, Tensor]:
    """What a serving side gets for a batch.

    An output adapter that has a method ``served(model, batch)`` says so itself. Otherwise it is what the model returns:
    tensors under their names, or one tensor as "logits" (of classes and tokens), "predictions" (of regression), "flow"
    or "output". Three kinds of models are asked in the way that suits their task:

    - a language model for as many places as there are tokens, (b, n, vocabulary);
    - an optical flow model for (b, 2, h, w) in pixels, to the right and down;
    - a multimodal autoencoder for clips: ``audio`` (b, samples), ``video`` (b, frames, 3, h, w) and ``logits`` (b,
      classes).

    Args:
        model: the model.
        batch: what its input adapter reads.
    """
    adapter: Any = model.output_adapter
    if hasattr(adapter, "served"):
        return adapter.served(model, batch)
    if isinstance(adapter, AudioVideoLabelOutputAdapter):
        clips = reconstruct(model, batch)
        return {"audio": clips.input_values, "video": clips.pixel_values_videos, "logits": clips.logits}
    positions = None
    if isinstance(adapter, OF_TOKENS) and isinstance(model.input_adapter, TextInputAdapter):
        input_ids = batch["input_ids"]
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    # The class's own forward: a subclass for a task may take its inputs one by one.
    output = PerceiverIO.forward(model, batch, positions)
    if isinstance(adapter, OpticalFlowOutputAdapter) and "frames" in batch:
        pixels = getattr(model.config.decoder, "flow_scale_factor", 1.0)
        output = output.transpose(1, 2).unflatten(2, batch["frames"].shape[3:]) * pixels
    name = next((name for kind, name in NAMES if isinstance(adapter, kind)), "output")
    taken = dict(entries(batch))
    return {f"output_{name}" if name in taken else name: tensor for name, tensor in _named(output, name)}


def _named(output: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of any structure, each with its name."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _named(value, str(key))
    elif isinstance(output, list | tuple):
        keys = getattr(output, "_fields", [f"{name}_{place}" for place in range(len(output))])
        for key, value in zip(keys, output, strict=True):
            yield from _named(value, key)
