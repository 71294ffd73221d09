"""The adapter that makes one input array of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, Context, InputAdapter
from perceiver_plugins.composite.config import CompositeEncoderConfig
from perceiver_registry import registry


class CompositeInputAdapter(InputAdapter):
    """Several input adapters as one: their arrays one after the other, in the order of the modalities' names.

    All arrays are filled up to the channels of the widest and ``min_padding`` more, each with a learned vector that
    is the same at all of its places: the embedding of the modality (Perceiver IO, arXiv 2107.14795, "Multimodal
    autoencoding").

    Each adapter reads the batch as a whole or, where the batch has an entry of the modality's name that is a mapping,
    that entry: two images are told apart like this. A batch for ``{"image": {"adapter": "image-pixels"}, "text":
    {"adapter": "text"}}`` is either of these, as the data module likes::

        {"pixel_values": ..., "input_ids": ..., "attention_mask": ..., "labels": ...}
        {"image": {"pixel_values": ...}, "text": {"input_ids": ..., "attention_mask": ...}, "labels": ...}

    Extra entries for output queries and the output adapter (``context``) are those of all modalities, each under its
    name, or under ``modality.name`` where several modalities have one of that name.

    Places of a modality may be hidden from the encoder: the modality's mask token, a learned vector, stands there
    instead. A mask token, or an embedding, that never counts requires no gradient.

    Args:
        parts: the input adapters by the names of their modalities.
        min_padding: channels of the embedding of the modality with the most channels.
        init_scale: standard deviation of the normal initialisation of the embeddings and mask tokens.
        mask_probabilities: modalities that have a mask token, each with the probability with which a place is hidden
            in training. In evaluation no place is, but where the probability is 1 all are, always.
    """

    def __init__(
        self,
        parts: Mapping[str, InputAdapter],
        min_padding: int = 4,
        init_scale: float = 0.02,
        mask_probabilities: Mapping[str, float] | None = None,
    ):
        super().__init__(max(part.num_input_channels for part in parts.values()) + min_padding)
        ordered = dict(sorted(parts.items()))
        self.parts: Mapping[str, InputAdapter] = nn.ModuleDict(ordered)  # type: ignore[assignment]
        self.embeddings = nn.ParameterDict(
            {
                modality: torch.empty(self.num_input_channels - part.num_input_channels).normal_(0.0, init_scale)
                for modality, part in ordered.items()
            }
        )
        self.mask_probabilities = dict(sorted((mask_probabilities or {}).items()))
        self.mask_tokens = nn.ParameterDict(
            {
                modality: torch.empty(self.num_input_channels).normal_(0.0, init_scale)
                for modality in self.mask_probabilities
            }
        )
        for modality, probability in self.mask_probabilities.items():
            self.mask_tokens[modality].requires_grad_(probability > 0)
            self.embeddings[modality].requires_grad_(probability < 1)

    @classmethod
    def from_config(cls, config: CompositeEncoderConfig) -> CompositeInputAdapter:
        parts = {
            modality: registry().adapter_of("input", part).resolve("adapter").from_config(part)
            for modality, part in config.part_configs().items()
        }
        return cls(parts, config.min_padding, config.init_scale, config.mask_probabilities)

    def check_data(self, data: Any) -> None:
        for part in self.parts.values():
            part.check_data(data)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """The examples of all parts; by modality where two of them have an entry of the same name."""
        batches = {modality: part.example_batch(batch_size, generator) for modality, part in self.parts.items()}
        merged = {name: value for batch in batches.values() for name, value in batch.items()}
        return merged if len(merged) == sum(map(len, batches.values())) else batches

    def forward(self, batch: Batch) -> AdaptedInput:
        adapted = {modality: part(_entries(batch, modality)) for modality, part in self.parts.items()}
        arrays = [self._embedded(modality, own.x) for modality, own in adapted.items()]
        return AdaptedInput(torch.cat(arrays, dim=1), _joined_masks(list(adapted.values())), _joined_contexts(adapted))

    def mask_probability(self, modality: str) -> float:
        """The probability with which a place of a modality is hidden now, in training or in evaluation."""
        probability = self.mask_probabilities.get(modality, 0.0)
        return probability if self.training or probability == 1 else 0.0

    def _embedded(self, modality: str, x: Tensor) -> Tensor:
        """A modality's array (b, m, own channels), filled up to the common channels, with the mask token in places."""
        embedding, probability = self.embeddings[modality], self.mask_probability(modality)
        x = torch.cat([x.to(embedding.dtype), embedding.expand(*x.shape[:2], -1)], dim=-1)
        if probability == 0:
            return x
        if probability == 1:
            hidden = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        else:
            hidden = torch.rand(x.shape[:2], device=x.device) < probability
        return torch.where(hidden[..., None], self.mask_tokens[modality], x)


def _entries(batch: Batch, modality: str) -> Batch:
    """What a modality's adapter reads."""
    entries = batch.get(modality)
    return entries if isinstance(entries, Mapping) else batch


def _joined_masks(adapted: list[AdaptedInput]) -> Tensor | None:
    """The padding masks one after the other; None where there is no padding at all."""
    if all(each.pad_mask is None for each in adapted):
        return None
    masks = [
        torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask for x, mask, _ in adapted
    ]
    return torch.cat(masks, dim=1)


def _joined_contexts(adapted: Mapping[str, AdaptedInput]) -> Context:
    """Join the contexts of all modalities; an entry that several modalities have is called ``modality.entry``."""
    counts = Counter(name for each in adapted.values() for name in each.context)
    return {
        name if counts[name] == 1 else f"{modality}.{name}": value
        for modality, each in adapted.items()
        for name, value in each.context.items()
    }
