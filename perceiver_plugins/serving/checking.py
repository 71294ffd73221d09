"""Whether an exported model computes what the original does, in other sizes than those that were traced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Batch, PerceiverIO
from perceiver_plugins.serving.answers import answer
from perceiver_plugins.serving.batches import entries, example, of_size
from perceiver_plugins.serving.tracing import BATCH_SIZE, OpenSize, Traced
from perceiver_registry.formats import TOLERANCE, largest_difference

MAX_NUMBERS = 2**18
"""A batch of more numbers is not made larger for a check."""

Run = Callable[[Batch], Mapping[str, Tensor]]
"""Computes what an exported model answers."""


@dataclass(frozen=True)
class Check:
    """What came of a batch.

    Attributes:
        sizes: the sizes that differed from those of tracing, by name.
        difference: how far the outputs lay apart, relative to the largest; infinite if one of the two failed.
    """

    sizes: dict[str, int]
    difference: float

    @property
    def passed(self) -> bool:
        return self.difference <= TOLERANCE


def checks(model: PerceiverIO, traced: Traced, run: Run) -> Iterator[Check]:
    """Compares an exported model with the original: for one example and for more, with each size smaller, and larger.

    Large inputs, whose models take their time, are compared as seldom as that allows, and not made larger.

    Args:
        model: the original.
        traced: what was traced of it.
        run: computes what was exported.
    """
    is_open = "batch" in traced.sizes
    batch = example(model, BATCH_SIZE + 1 if is_open else 1)
    one, more = ({"batch": 1}, {"batch": BATCH_SIZE + 1}) if is_open else ({}, {})
    others = {name: size for name, size in traced.sizes.items() if name != "batch"}
    is_small = sum(value.numel() for _, value in entries(batch) if isinstance(value, Tensor)) <= MAX_NUMBERS
    if is_small or len(others) < 2:
        yield _first(model, traced, run, batch, [one])
    for place, (name, size) in enumerate(others.items()):
        number = more if is_small or place == 0 else one
        yield _first(model, traced, run, batch, [{**number, name: other} for other in _smaller(size)])
    if others and is_small:
        larger = {name: size for name, size in others.items() if size.highest is None}
        tries = [{name: by(size.traced) for name, size in larger.items()} for by in (_double, _half_more)]
        check = _first(model, traced, run, batch, [{**more, **each} for each in tries if each])
        if check.sizes:
            yield check


def _smaller(size: OpenSize) -> list[int]:
    """Sizes to try instead of the traced one: half of it first, as what consists of patches has even halves."""
    tries = [size.traced // 2, size.traced - 1, size.traced * 2, size.traced + 1]
    highest = size.highest or max(tries)
    return [each for each in tries if max(1, size.lowest) <= each <= highest and each != size.traced]


def _double(size: int) -> int:
    return 2 * size


def _half_more(size: int) -> int:
    return size + size // 2


def _first(model: PerceiverIO, traced: Traced, run: Run, batch: Batch, tries: list[dict[str, int]]) -> Check:
    """The check of the first sizes that the original takes."""
    for sizes in tries:
        other = _sized(batch, traced, sizes)
        expected = _answered(lambda batch: answer(model, batch), other)
        if expected is not None:
            found = _answered(run, other)
            return Check(sizes, float("inf") if found is None else largest_difference(expected, found))
    return Check({name: size for each in tries[:1] for name, size in each.items()}, float("inf"))


def _sized(batch: Batch, traced: Traced, sizes: Mapping[str, int]) -> dict[str, Any]:
    """A batch in some sizes, and for the rest in those of tracing."""
    shapes: dict[str, list[int | None]] = {port.name: [None] * len(port.shape) for port in traced.inputs}
    for name, size in traced.sizes.items():
        for entry, place in size.places:
            shapes[entry][place] = sizes.get(name, size.traced)
    return of_size(batch, {entry: tuple(shape) for entry, shape in shapes.items()})


def _answered(run: Run, batch: Batch) -> Mapping[str, Tensor] | None:
    """What a model answers; None if it cannot take such a batch."""
    try:
        with torch.inference_mode():
            return run(batch)
    except Exception:  # a stranger's adapter, or an exported program, may fail in any way
        return None
