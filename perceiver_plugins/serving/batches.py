"""Batches of exported models: entries by name, and resized copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Batch, Model

DIMENSIONS = {
    "input_ids": ("batch", "length"),
    "attention_mask": ("batch", "length"),
    "inputs": ("batch", "features"),
    "pixel_values": ("batch", "channels", "height", "width"),
    "frames": ("batch", "frames", "channels", "height", "width"),
    "input_values": ("batch", "samples"),
    "pixel_values_videos": ("batch", "frames", "channels", "height", "width"),
}
"""Names of the dimensions of a batch's entries."""


def example_batch(model: Model, batch_size: int) -> dict[str, Any]:
    """Return a random batch for a model, with a fixed seed."""
    batch = model.input_adapter.example_batch(batch_size, torch.Generator().manual_seed(0))
    return map_entries(batch, lambda name, value: value)


def map_entries(batch: Batch, function: Callable[[str, Any], Any], prefix: str = "") -> dict[str, Any]:
    """Apply ``function(name, value)`` to all entries of a batch and return the results in the same structure.

    The name of an entry of a nested batch has the name of the nested batch as prefix: ``image.pixel_values``.
    """
    return {
        name: map_entries(value, function, f"{prefix}{name}.")
        if isinstance(value, Mapping)
        else function(f"{prefix}{name}", value)
        for name, value in batch.items()
    }


def dimension_name(entry: str, dim: int) -> str:
    """Return the name of a dimension of a batch's entry."""
    known = DIMENSIONS.get(entry.rpartition(".")[2], ("batch",))
    return known[dim] if dim < len(known) else f"{entry}_{dim}"


def resize_batch(batch: Batch, sizes: Mapping[str, tuple[int | None, ...]]) -> dict[str, Any]:
    """Return a copy of a batch in which entries are truncated or repeated to the given sizes.

    Args:
        batch: the batch.
        sizes: shapes of entries by name; None keeps the size of a dimension.
    """

    def resize(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        for dim, size in enumerate(sizes.get(name, ())):
            if size is not None and size != value.shape[dim]:
                value = value.index_select(dim, torch.arange(size) % value.shape[dim])
        return value

    return map_entries(batch, resize)
