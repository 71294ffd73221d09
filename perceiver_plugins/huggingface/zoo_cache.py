"""Cache of causal models for generation with ``transformers``."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from perceiver_core import SequenceCache

CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""Name of the cache in arguments and outputs, which differs between versions of transformers."""

CROPS_TO_ZERO = "tokens_to_remove" not in inspect.signature(DynamicCache.crop).parameters
"""A crop to 0 drops all tokens. In newer versions of transformers, whose argument differs, it drops none."""


class ZooCache(DynamicCache):
    """Cache of a causal model (:class:`~perceiver_core.SequenceCache`) with the methods of caches of transformers.

    It is a ``DynamicCache`` only because transformers 4 crops no others.

    Args:
        sequence: empty cache of the model.
    """

    layers: list[Any]
    is_compileable = False
    is_croppable = True
    is_initialized = True
    is_linear = [False]  # noqa: RUF012
    is_sliding = [False]  # noqa: RUF012

    def __init__(self, sequence: SequenceCache):  # the base class would create layers
        self.sequence = sequence
        self.layers = []
        self.offloading = False

    def __len__(self) -> int:
        """Return the number of attention layers."""
        return 1 + len(self.sequence.latents)

    def __repr__(self) -> str:
        return f"ZooCache(tokens={len(self.sequence)})"

    @property
    def batch_size(self) -> int:
        """Number of sequences."""
        return self.sequence.batch_size

    def get_seq_length(self, layer_idx: int | None = 0, *args: Any, **kwargs: Any) -> int:
        """Return the number of tokens so far, padding included."""
        return len(self.sequence)

    def crop(self, max_length: int) -> None:
        """Drop the last tokens.

        Args:
            max_length: number of tokens to keep, or if it is negative, the number to drop with a minus sign.
        """
        keeps = max_length > 0 or (max_length == 0 and CROPS_TO_ZERO)
        self.sequence.truncate(max_length if keeps else len(self.sequence) + max_length)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Replace the sequences by those at the indices (b,)."""
        self.sequence.select_rows(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the sequences at the indices (b,)."""
        self.sequence.select_rows(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each sequence ``repeats`` times."""
        self.sequence.select_rows(torch.arange(self.batch_size).repeat_interleave(repeats))

    def activate_past_recording(self) -> None:
        """No-op: all tokens are kept, from which dropped states are recomputed."""
