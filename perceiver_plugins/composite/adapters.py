"""Input adapter that combines several input adapters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import AdaptedInput, Batch, Context, EncoderConfig, InputAdapter
from perceiver_plugins.composite.config import CompositeEncoderConfig
from perceiver_plugins.sdk.data.column_reader import MISSING_ENTRY
from perceiver_registry import registry

MISSING_FRACTION = 0.25
"""Fraction of examples without an optional modality in an example batch; arbitrary."""


class CompositeInputAdapter(InputAdapter):
    """Several input adapters as one: concatenates their arrays, ordered by the names of the modalities.

    Each array is padded to the channels of the widest plus ``min_padding`` with the embedding of its modality, a
    learned vector that is the same at all positions (Perceiver IO, arXiv 2107.14795, "Multimodal autoencoding").

    An adapter reads the whole batch, or the entry with the name of its modality if this is a mapping, for example to
    distinguish two images. A batch for ``{"image": {"adapter": "image-pixels"}, "text": {"adapter": "text"}}`` can have
    either form::

        {"pixel_values": ..., "input_ids": ..., "attention_mask": ..., "labels": ...}
        {"image": {"pixel_values": ...}, "text": {"input_ids": ..., "attention_mask": ...}, "labels": ...}

    The ``context`` for output queries and output adapter has the entries of all modalities, under ``modality.name`` if
    several modalities have an entry with the same name.

    An example may lack an optional modality: its first position is then a learned vector, and the others are padding.

    Masking replaces input positions of a modality by its mask token, a learned vector. Unused mask tokens and
    embeddings require no gradient.

    Args:
        parts: the input adapters by modality.
        min_padding: channels of the embedding of the widest modality.
        init_scale: standard deviation of the normal initialisation of embeddings and mask tokens.
        mask_probabilities: probabilities of masking a position in training, by modality; these modalities have a mask
            token. A probability of 1 masks all positions in evaluation as well; any other value masks nothing in
            evaluation.
        optional: modalities that examples may lack. Their nested batch has the entry ``missing`` (b,), bool.
    """

    def __init__(
        self,
        parts: Mapping[str, InputAdapter],
        min_padding: int = 4,
        init_scale: float = 0.02,
        mask_probabilities: Mapping[str, float] | None = None,
        optional: Sequence[str] = (),
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
        self.missing = nn.ParameterDict(
            {modality: torch.empty(self.num_input_channels).normal_(0.0, init_scale) for modality in sorted(optional)}
        )

    @classmethod
    def from_config(cls, config: CompositeEncoderConfig) -> CompositeInputAdapter:
        return cls(
            create_parts(config.part_configs()),
            config.min_padding,
            config.init_scale,
            config.mask_probabilities,
            config.optional_inputs,
        )

    def check_data(self, data: Any) -> None:
        """Check the data of each part. Tables have the optional modalities and their fields in ``column_inputs``.

        Raises:
            ValueError: if the data of a part does not fit, or if it has other optional modalities.
        """
        columns = getattr(data, "column_inputs", None) or {}
        different = sorted(columns.keys() ^ self.missing.keys()) if columns else []
        if different:
            owner, other = ("data", "model") if different[0] in columns else ("model", "data")
            raise ValueError(f"the {owner}'s input {different[0]!r} is not one of the {other}'s")
        for modality, part in self.parts.items():
            part.check_data(SimpleNamespace(**columns[modality]) if modality in columns else data)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Return the entries of all parts; as nested batches by modality if parts have entries of the same name.

        Optional modalities always have a nested batch.
        """
        batches = {modality: part.example_batch(batch_size, generator) for modality, part in self.parts.items()}
        nested: dict[str, Any] = {}
        for modality in self.missing:
            missing = torch.rand(batch_size, generator=generator) < MISSING_FRACTION
            nested[modality] = {**batches.pop(modality), MISSING_ENTRY: missing}
        merged = {name: value for batch in batches.values() for name, value in batch.items()}
        is_unique = len(merged) == sum(map(len, batches.values())) and not merged.keys() & nested.keys()
        return {**(merged if is_unique else batches), **nested}

    def forward(self, batch: Batch) -> AdaptedInput:
        parts = {modality: part(_entries(batch, modality)) for modality, part in self.parts.items()}
        adapted = {modality: self._adapt(modality, batch, part) for modality, part in parts.items()}
        arrays = [each.x for each in adapted.values()]
        return AdaptedInput(torch.cat(arrays, dim=1), _join_masks(list(adapted.values())), _join_contexts(adapted))

    def _adapt(self, modality: str, batch: Batch, part: AdaptedInput) -> AdaptedInput:
        """Append the modality embedding to the array of a modality, and replace missing inputs."""
        x, pad_mask, context = self._embed(modality, part.x), part.pad_mask, part.context
        missing = _entries(batch, modality).get(MISSING_ENTRY) if modality in self.missing else None
        if missing is None:
            return AdaptedInput(x, pad_mask, context)
        is_first = torch.arange(x.shape[1], device=x.device) == 0
        x = torch.where((missing[:, None] & is_first)[..., None], self.missing[modality], x)
        padding = missing[:, None] & ~is_first  # onnxruntime has no torch.where of booleans
        if pad_mask is not None:
            padding = padding | (pad_mask & ~missing[:, None])
        return AdaptedInput(x, padding, context)

    def mask_probability(self, modality: str) -> float:
        """Return the probability of masking a position of a modality in the current mode, training or evaluation."""
        probability = self.mask_probabilities.get(modality, 0.0)
        return probability if self.training or probability == 1 else 0.0

    def _embed(self, modality: str, x: Tensor) -> Tensor:
        """Append the modality embedding to an array (b, m, channels), and mask positions."""
        embedding, probability = self.embeddings[modality], self.mask_probability(modality)
        x = torch.cat([x.to(embedding.dtype), embedding.expand(*x.shape[:2], -1)], dim=-1)
        if probability == 0:
            return x
        if probability == 1:
            masked = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        else:
            masked = torch.rand(x.shape[:2], device=x.device) < probability
        return torch.where(masked[..., None], self.mask_tokens[modality], x)


def create_parts(configs: Mapping[str, EncoderConfig]) -> dict[str, InputAdapter]:
    """Create an input adapter for each configuration, by modality."""
    return {
        modality: registry().adapter_of("input", config).resolve("adapter").from_config(config)
        for modality, config in configs.items()
    }


def _entries(batch: Batch, modality: str) -> Batch:
    """Return the batch that a modality's adapter reads."""
    entries = batch.get(modality)
    return entries if isinstance(entries, Mapping) else batch


def _join_masks(adapted: list[AdaptedInput]) -> Tensor | None:
    """Concatenate the padding masks; None if no modality has padding."""
    if all(each.pad_mask is None for each in adapted):
        return None
    masks = [
        torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask for x, mask, _ in adapted
    ]
    return torch.cat(masks, dim=1)


def _join_contexts(adapted: Mapping[str, AdaptedInput]) -> Context:
    """Merge the contexts of all modalities; an entry of several modalities is named ``modality.entry``."""
    counts = Counter(name for each in adapted.values() for name in each.context)
    return {
        name if counts[name] == 1 else f"{modality}.{name}": value
        for modality, each in adapted.items()
        for name, value in each.context.items()
    }
