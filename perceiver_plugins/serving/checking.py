"""Comparison of exported models with the original, for sizes other than those of tracing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Batch, Model
from perceiver_plugins.sdk.tasks.batches import entries
from perceiver_plugins.serving.batches import example_batch, resize_batch
from perceiver_plugins.serving.served_model import compute_outputs
from perceiver_plugins.serving.tracing import BATCH_SIZE, DynamicSize, Traced
from perceiver_registry.formats import TOLERANCE, largest_difference

MAX_ELEMENTS = 2**18
"""Largest number of elements of an input that is checked at all planned sizes; arbitrary."""

Run = Callable[[Batch], Mapping[str, Tensor]]
"""Computes the named output tensors of an exported model."""


@dataclass(frozen=True)
class Check:
    """Comparison of an exported model with the original for one batch.

    Attributes:
        sizes: sizes that differ from those of tracing, by name.
        difference: largest difference of the outputs, relative to the largest output; infinite if one of the two
            models failed.
    """

    sizes: dict[str, int]
    difference: float

    @property
    def passed(self) -> bool:
        return self.difference <= TOLERANCE


def checks(model: Model, traced: Traced, run: Run) -> Iterator[Check]:
    """Compare an exported model with the original at several batch sizes, and at other sizes of each dynamic dimension.

    Large inputs are compared at fewer sizes, to limit the time.

    Args:
        model: original model.
        traced: program of the model.
        run: computes the outputs of the exported model.
    """
    batch = example_batch(model, BATCH_SIZE + 1 if "batch" in traced.sizes else 1)
    is_small = _count_elements(batch) <= MAX_ELEMENTS
    for candidates in _planned_sizes(traced.sizes, is_small):
        yield _check_first(model, traced, run, batch, candidates)


def _count_elements(batch: Batch) -> int:
    return sum(value.numel() for _, value in entries(batch) if isinstance(value, Tensor))


def _planned_sizes(sizes: Mapping[str, DynamicSize], is_small: bool) -> Iterator[list[dict[str, int]]]:
    """Yield the candidate sizes of each check, which uses the first of them that the original model accepts."""
    one, more = _batch_sizes(sizes)
    others = {name: size for name, size in sizes.items() if name != "batch"}
    if is_small or len(others) < 2:
        yield [one]
    for index, (name, size) in enumerate(others.items()):
        batch_size = more if is_small or index == 0 else one
        yield [{**batch_size, name: other} for other in _other_sizes(size)]
    if is_small and (enlarged := _enlarged_together(others)):
        yield [{**more, **each} for each in enlarged]


def _batch_sizes(sizes: Mapping[str, DynamicSize]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the sizes for one example and for several; empty dicts if the batch size is fixed."""
    return ({"batch": 1}, {"batch": BATCH_SIZE + 1}) if "batch" in sizes else ({}, {})


def _other_sizes(size: DynamicSize) -> list[int]:
    """Return sizes to try instead of the traced one: half of it first, which patches divide most often."""
    candidates = [size.traced // 2, size.traced - 1, size.traced * 2, size.traced + 1]
    highest = size.highest or max(candidates)
    return [each for each in candidates if max(1, size.lowest) <= each <= highest and each != size.traced]


def _enlarged_together(sizes: Mapping[str, DynamicSize]) -> list[dict[str, int]]:
    """Return the traced sizes that have no upper limit, times 2 and times 1.5; an empty list if all have a limit."""
    unlimited = {name: size.traced for name, size in sizes.items() if size.highest is None}
    if not unlimited:
        return []
    doubled = {name: 2 * traced for name, traced in unlimited.items()}
    half_more = {name: traced + traced // 2 for name, traced in unlimited.items()}
    return [doubled, half_more]


def _check_first(model: Model, traced: Traced, run: Run, batch: Batch, candidates: list[dict[str, int]]) -> Check:
    """Compare the models at the first of the candidate sizes that the original model accepts."""
    for sizes in candidates:
        resized = _resize(batch, traced, sizes)
        expected = _try_run(lambda batch: compute_outputs(model, batch), resized)
        if expected is not None:
            found = _try_run(run, resized)
            return Check(sizes, float("inf") if found is None else largest_difference(expected, found))
    return Check({name: size for each in candidates[:1] for name, size in each.items()}, float("inf"))


def _resize(batch: Batch, traced: Traced, sizes: Mapping[str, int]) -> dict[str, Any]:
    """Return a batch with the given sizes, and the traced ones for other dimensions."""
    shapes: dict[str, list[int | None]] = {port.name: [None] * len(port.shape) for port in traced.inputs}
    for name, size in traced.sizes.items():
        for entry, dim in size.dims:
            shapes[entry][dim] = sizes.get(name, size.traced)
    return resize_batch(batch, {entry: tuple(shape) for entry, shape in shapes.items()})


def _try_run(run: Run, batch: Batch) -> Mapping[str, Tensor] | None:
    """Return the outputs of a model; None if it fails for such a batch."""
    try:
        with torch.inference_mode():
            return run(batch)
    except Exception:  # a third party's adapter, or an exported program, may raise anything
        return None
