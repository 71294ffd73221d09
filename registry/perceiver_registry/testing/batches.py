"""Batches and outputs of any structure: copies, rows, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from perceiver_plugins.sdk.tasks.batches import problems_of_array

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""How far two results of one computation may lie apart in single precision."""


def map_tensors(structure: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """A copy of dicts, lists and tuples of tensors, with ``function`` applied to each of these."""
    if isinstance(structure, Tensor):
        return function(structure)
    if isinstance(structure, Mapping):
        return {name: map_tensors(value, function) for name, value in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*(map_tensors(value, function) for value in structure))
    if isinstance(structure, list | tuple):
        return type(structure)(map_tensors(value, function) for value in structure)
    return structure


def tensors_of(structure: Any) -> Iterator[Tensor]:
    """The tensors in dicts, lists, tuples and sets."""
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for value in structure.values():
            yield from tensors_of(value)
    elif isinstance(structure, list | tuple | set | frozenset):
        for value in structure:
            yield from tensors_of(value)


def clone(structure: Any) -> Any:
    """A copy that shares no memory."""
    return map_tensors(structure, torch.clone)


def move(structure: Any, place: torch.dtype | str) -> Any:
    """A copy on another device or, as far as tensors are floating point, of another dtype."""
    dtype = isinstance(place, torch.dtype)
    return map_tensors(structure, lambda value: value.to(place) if not dtype or value.is_floating_point() else value)


def rows(structure: Any, chosen: Any) -> Any:
    """The chosen examples of a batch, or of an output."""
    return map_tensors(structure, lambda value: value[chosen])


def problems_of_adapted(adapted: Any, num_channels: int, batch_size: int) -> Iterator[str]:
    """What is wrong with the types and shapes of an input adapter's output.

    Args:
        adapted: what the input adapter returned.
        num_channels: its ``num_input_channels`` c.
        batch_size: number b of examples that it was given.
    """
    if problems := list(problems_of_array(adapted, num_channels)):
        yield from problems
        return
    x, pad_mask, context = adapted
    shape = tuple(x.shape)
    if shape[0] != batch_size:
        yield f"x has shape {shape} for {batch_size} examples"
    if pad_mask is not None:
        found = f"{pad_mask.dtype} of shape {tuple(pad_mask.shape)}"
        if pad_mask.dtype != torch.bool:
            yield f"pad_mask is {found}, not booleans"
        if pad_mask.shape != x.shape[:2]:
            yield f"pad_mask is {found}, x has shape {shape}"
    for name, value in context.items():
        if not (isinstance(value, Tensor) and value.dim() >= 2 and len(value) == batch_size):
            found = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            yield f"context[{name!r}] is {found} for {batch_size} examples, not (b, o, ...) or (b, 1, ...)"


def difference(found: Any, expected: Any) -> str | None:
    """What differs between two structures of tensors, in words; None if they are equal but for rounding."""
    ours, theirs = list(tensors_of(found)), list(tensors_of(expected))
    if len(ours) != len(theirs):
        return f"there are {len(ours)} tensors, not {len(theirs)}"
    for one, other in zip(ours, theirs, strict=True):
        if one.shape != other.shape:
            return f"the shape is {tuple(one.shape)}, not {tuple(other.shape)}"
        if not one.is_floating_point():
            if not torch.equal(one, other):
                return f"{int((one != other).sum())} of {one.numel()} values differ"
        elif not torch.allclose(one, other, RELATIVE, ABSOLUTE, equal_nan=True):
            return f"values differ by up to {float((one - other).abs().nan_to_num(torch.inf).max()):.2g}"
    return None
