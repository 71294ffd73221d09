"""Operations on nested structures of tensors: map, copy, select rows, compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from perceiver_plugins.sdk.tasks.batches import problems_of_array

RELATIVE, ABSOLUTE = 1e-4, 1e-5
"""Tolerances between two results of one computation in single precision."""


def map_tensors(structure: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Copy dicts, lists and tuples with ``function`` applied to each tensor."""
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
    """Yield the tensors in dicts, lists, tuples and sets."""
    if isinstance(structure, Tensor):
        yield structure
    elif isinstance(structure, Mapping):
        for value in structure.values():
            yield from tensors_of(value)
    elif isinstance(structure, list | tuple | set | frozenset):
        for value in structure:
            yield from tensors_of(value)


def clone(structure: Any) -> Any:
    """Return a copy with copied tensors."""
    return map_tensors(structure, torch.clone)


def move(structure: Any, target: torch.dtype | str) -> Any:
    """Return a copy on another device, or with floating point tensors of another dtype."""
    is_dtype = isinstance(target, torch.dtype)
    return map_tensors(
        structure, lambda value: value.to(target) if not is_dtype or value.is_floating_point() else value
    )


def rows(structure: Any, chosen: Any) -> Any:
    """Select examples of a batch or an output."""
    return map_tensors(structure, lambda value: value[chosen])


def problems_of_adapted(adapted: Any, num_channels: int, batch_size: int) -> Iterator[str]:
    """Yield problems with the types and shapes of an input adapter's output.

    Args:
        adapted: the output.
        num_channels: the adapter's ``num_input_channels`` c.
        batch_size: number b of examples in the batch.
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
    """Describe the first difference between two structures of tensors, or return None if they are close."""
    found_tensors, expected_tensors = list(tensors_of(found)), list(tensors_of(expected))
    if len(found_tensors) != len(expected_tensors):
        return f"there are {len(found_tensors)} tensors, not {len(expected_tensors)}"
    for x, y in zip(found_tensors, expected_tensors, strict=True):
        if x.shape != y.shape:
            return f"the shape is {tuple(x.shape)}, not {tuple(y.shape)}"
        if not x.is_floating_point():
            if not torch.equal(x, y):
                return f"{int((x != y).sum())} of {x.numel()} values differ"
        elif not torch.allclose(x, y, RELATIVE, ABSOLUTE, equal_nan=True):
            return f"values differ by up to {float((x - y).abs().nan_to_num(torch.inf).max()):.2g}"
    return None
