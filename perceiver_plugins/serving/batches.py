"""Batches of an exported model: their entries by name, and copies of other sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Batch, PerceiverIO

DIMENSIONS = {
    "input_ids": ("batch", "length"),
    "attention_mask": ("batch", "length"),
    "inputs": ("batch", "features"),
    "pixel_values": ("batch", "channels", "height", "width"),
    "frames": ("batch", "frames", "channels", "height", "width"),
    "input_values": ("batch", "samples"),
    "pixel_values_videos": ("batch", "frames", "channels", "height", "width"),
}
"""What the dimensions of a batch's entries are called."""


def example(model: PerceiverIO, batch_size: int) -> dict[str, Any]:
    """Random inputs for a model, the same each time."""
    batch = model.input_adapter.example_batch(batch_size, torch.Generator().manual_seed(0))
    return map_entries(batch, lambda name, value: value)


def map_entries(batch: Batch, function: Callable[[str, Any], Any], prefix: str = "") -> dict[str, Any]:
    """A batch of the same structure, with ``function`` of each entry's name and value in the value's place.

    An entry of a batch within the batch is named by both: ``image.pixel_values``.
    """
    return {
        name: map_entries(value, function, f"{prefix}{name}.")
        if isinstance(value, Mapping)
        else function(f"{prefix}{name}", value)
        for name, value in batch.items()
    }


def entries(batch: Batch, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of a batch, and those of batches within it, with their names."""
    for name, value in batch.items():
        if isinstance(value, Mapping):
            yield from entries(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def dimension(entry: str, place: int) -> str:
    """What a dimension of a batch's entry is called."""
    known = DIMENSIONS.get(entry.rpartition(".")[2], ("batch",))
    return known[place] if place < len(known) else f"{entry}_{place}"


def of_size(batch: Batch, sizes: Mapping[str, tuple[int | None, ...]]) -> dict[str, Any]:
    """A copy of a batch in other sizes: the beginning of what is longer, and what is shorter repeated.

    Args:
        batch: the batch.
        sizes: the shapes of its entries by name; None leaves a dimension as it is.
    """

    def resized(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        for place, size in enumerate(sizes.get(name, ())):
            if size is not None and size != value.shape[place]:
                value = value.index_select(place, torch.arange(size) % value.shape[place])
        return value

    return map_entries(batch, resized)
