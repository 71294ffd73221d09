"""Decoding of clips: any modalities, any positions, in chunks to limit memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from perceiver_core import Batch, PerceiverIO
from perceiver_plugins.multimodal.adapters import AUDIO, LABEL, VIDEO
from perceiver_plugins.multimodal.queries import ClipQueryProvider

CHUNK_SIZE = 16384
"""Output positions per chunk: the published model then decodes a clip within 1.3 GB on a CPU."""


class Reconstruction(NamedTuple):
    """Reconstructed clips, in the shape of the input.

    Attributes:
        input_values: audio (b, samples).
        pixel_values_videos: video (b, frames, 3, height, width).
        logits: logits (b, classes) of the label.
    """

    input_values: Tensor
    pixel_values_videos: Tensor
    logits: Tensor


def decode(
    model: PerceiverIO,
    batch: Batch,
    positions: Mapping[str, Tensor | None] | None = None,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    """Encode clips once and decode the given positions, at a cost proportional to their number.

    Args:
        model: a model with the output adapter ``audio-video-label``.
        batch: batch that the model's input adapter reads.
        positions: indices of the output positions to decode, by modality ("audio", "image", "label"): (p) for all
            examples, or (b, p). Audio patches, and pixels by frame, row and column, are counted from 0; the label has
            index 0. None instead of indices: all positions of the modality. None: all modalities.
        chunk_size: number of positions to decode at once, which limits the memory. None: all.

    Returns:
        For each requested modality (b, p, samples per patch), (b, p, 3) or logits (b, p, classes).
    """
    adapter: Any = model.output_adapter
    latents = model.encoder(model.input_adapter(batch))
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    for chunk in _chunks(_indices(adapter.query_provider, positions, latents), chunk_size):
        queries = [adapter.query_provider.queries(modality, indices) for modality, indices in chunk]
        size = max(map(len, queries))
        decoded = model.decoder(torch.cat([each.expand(size, -1, -1) for each in queries], dim=1), latents)
        parts = decoded.split([each.shape[1] for each in queries], dim=1)
        for (modality, _), part in zip(chunk, parts, strict=True):
            outputs[modality].append(adapter.output(modality, part))
    return {modality: torch.cat(parts, dim=1) for modality, parts in outputs.items()}


def reconstruct(model: PerceiverIO, batch: Batch, chunk_size: int | None = CHUNK_SIZE) -> Reconstruction:
    """Encode clips and decode all positions.

    Args:
        model: a model with the output adapter ``audio-video-label``.
        batch: batch that the model's input adapter reads.
        chunk_size: number of positions to decode at once. None: all.
    """
    outputs = decode(model, batch, chunk_size=chunk_size)
    return assemble_clips(model.output_adapter.query_provider, outputs)  # type: ignore[arg-type]


def assemble_clips(provider: ClipQueryProvider, outputs: Mapping[str, Tensor]) -> Reconstruction:
    """Assemble clips from the outputs of all positions of all modalities (:func:`decode`)."""
    pixels = outputs[VIDEO].unflatten(1, provider.grids[VIDEO])
    return Reconstruction(outputs[AUDIO].flatten(1), pixels.movedim(-1, 2), outputs[LABEL][:, 0])


def _indices(
    provider: ClipQueryProvider, positions: Mapping[str, Tensor | None] | None, latents: Tensor
) -> dict[str, Tensor]:
    """Return the indices (b or 1, p) of the requested positions, by modality."""
    sizes = provider.num_positions
    requested = dict.fromkeys(sizes) if positions is None else positions
    device = latents.device
    indices = {
        modality: torch.arange(sizes[modality], device=device) if some is None else some.to(device)
        for modality, some in requested.items()
    }
    return {modality: each if each.dim() == 2 else each[None] for modality, each in indices.items()}


def _chunks(indices: Mapping[str, Tensor], chunk_size: int | None) -> list[list[tuple[str, Tensor]]]:
    """Split the positions into chunks that are decoded together."""
    if chunk_size is None:
        return [[*indices.items()]]
    return [[(modality, part)] for modality, each in indices.items() for part in each.split(chunk_size, dim=1)]
