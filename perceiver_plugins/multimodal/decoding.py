"""Decoding what is asked for: some or all places of some or all modalities, in pieces if need be."""

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
"""Output places that are decoded at once. With these, the published model decodes a clip within 1.3 GB on a CPU."""


class Reconstruction(NamedTuple):
    """What a model makes of clips, in the shape of its input.

    Attributes:
        input_values: (b, samples), the audio.
        pixel_values_videos: (b, frames, 3, height, width), the video.
        logits: (b, classes), of the label.
    """

    input_values: Tensor
    pixel_values_videos: Tensor
    logits: Tensor


def decode(
    model: PerceiverIO,
    batch: Batch,
    places: Mapping[str, Tensor | None] | None = None,
    chunk_size: int | None = None,
) -> dict[str, Tensor]:
    """Encodes clips once and decodes the places that are asked for, at a cost that follows their number.

    Args:
        model: a model with the output adapter ``audio-video-label``.
        batch: what its input adapter reads.
        places: the modalities to decode ("audio", "image", "label"), each with the numbers of its places, the same for
            all examples (p) or for each its own (b, p). Patches of audio and pixels are numbered from 0, pixels frame
            by frame and row by row; the label is number 0. None in the place of numbers: all of the modality. None:
            all of all modalities.
        chunk_size: how many places to decode at once, which bounds the memory that it takes. None: all.

    Returns:
        For each modality that was asked for, (b, p, samples per patch), (b, p, 3) or logits (b, p, classes).
    """
    adapter: Any = model.output_adapter
    latents = model.encoder(model.input_adapter(batch))
    outputs: dict[str, list[Tensor]] = defaultdict(list)
    for group in _groups(_all_places(adapter.query_provider, places, latents), chunk_size):
        queries = [adapter.query_provider.queries(modality, numbers) for modality, numbers in group]
        size = max(map(len, queries))
        decoded = model.decoder(torch.cat([each.expand(size, -1, -1) for each in queries], dim=1), latents)
        parts = decoded.split([each.shape[1] for each in queries], dim=1)
        for (modality, _), part in zip(group, parts, strict=True):
            outputs[modality].append(adapter.output(modality, part))
    return {modality: torch.cat(parts, dim=1) for modality, parts in outputs.items()}


def reconstruct(model: PerceiverIO, batch: Batch, chunk_size: int | None = CHUNK_SIZE) -> Reconstruction:
    """Encodes clips and decodes all of them.

    Args:
        model: a model with the output adapter ``audio-video-label``.
        batch: what its input adapter reads.
        chunk_size: how many places to decode at once. None: all.
    """
    outputs = decode(model, batch, chunk_size=chunk_size)
    return assemble_clips(model.output_adapter.query_provider, outputs)  # type: ignore[arg-type]


def assemble_clips(provider: ClipQueryProvider, outputs: Mapping[str, Tensor]) -> Reconstruction:
    """Puts together the outputs of all places of all modalities (:func:`decode`)."""
    pixels = outputs[VIDEO].unflatten(1, provider.grids[VIDEO])
    return Reconstruction(outputs[AUDIO].flatten(1), pixels.movedim(-1, 2), outputs[LABEL][:, 0])


def _all_places(
    provider: ClipQueryProvider, places: Mapping[str, Tensor | None] | None, latents: Tensor
) -> dict[str, Tensor]:
    """The numbers (b or 1, p) of the places of each modality that is asked for."""
    numbers = provider.num_places
    asked = dict.fromkeys(numbers) if places is None else places
    device = latents.device
    every = {
        modality: torch.arange(numbers[modality], device=device) if own is None else own.to(device)
        for modality, own in asked.items()
    }
    return {modality: own if own.dim() == 2 else own[None] for modality, own in every.items()}


def _groups(places: Mapping[str, Tensor], chunk_size: int | None) -> list[list[tuple[str, Tensor]]]:
    """What is decoded together."""
    if chunk_size is None:
        return [[*places.items()]]
    return [[(modality, part)] for modality, own in places.items() for part in own.split(chunk_size, dim=1)]
