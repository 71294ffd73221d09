"""Growth of time and memory with the number of inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.case import HUGGING_FACE, OURS, Case, Comparison, Contender, Options
from benchmarks.cases import flow, image

SIDES = (46, 64, 90, 128, 182, 256, 364, 448)
"""Pixels of a square image: from 2 thousand to 200 thousand inputs, about twice as many each time."""

SHALLOW = {"num_self_attention_blocks": 1, "num_self_attention_layers_per_block": 1}
"""A single self-attention layer, since its cost does not depend on the inputs."""


def sides(options: Options) -> tuple[int, ...]:
    return (16, 24, 32) if options.quick else SIDES


def comparisons(options: Options, work: str, arguments: Callable[[int], dict[str, Any]]) -> list[Comparison]:
    """Ours and Hugging Face's at each size, with the arguments that a side has."""
    return [
        Comparison(
            tuple(Contender(name, work, {"implementation": name, **arguments(side)}) for name in (OURS, HUGGING_FACE)),
            name=f"{side}x{side}",
            size=side * side,
            max_rounds=3,
        )
        for side in sides(options)
    ]


def inputs(options: Options) -> list[Comparison]:
    """The image classifier on larger and larger images."""
    overrides = image.overrides(options, **SHALLOW)
    return comparisons(options, "benchmarks.cases.image:forward", lambda side: {"side": side, "overrides": overrides})


def outputs(options: Options) -> list[Comparison]:
    """The optical flow model on larger and larger frames: as many outputs as inputs."""

    def arguments(side: int) -> dict[str, Any]:
        return {"size": [side, side], "overrides": flow.overrides(options, image_size=[side, side], **SHALLOW)}

    return comparisons(options, "benchmarks.cases.flow:forward", arguments)


CASES = [
    Case(
        "growth-inputs",
        "Growth with the inputs",
        "The image classifier with a single layer among its latents, on images of 2 thousand to 200 thousand "
        "pixels. The slope of the seconds is that of a straight line through the larger half of the sizes, in "
        "logarithms: 1 is in proportion to the size.",
        inputs,
        picture="growth",
    ),
    Case(
        "growth-outputs",
        "Growth with inputs and outputs",
        "The optical flow model with a single layer among its latents, on frames of 2 thousand to 200 thousand "
        "pixels, each of which is an input and asks for an output.",
        outputs,
        picture="growth",
    ),
]
