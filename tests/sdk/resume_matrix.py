"""Combinations of features that affect resuming, generated from a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

Combination = dict[str, str]

FEATURES: Mapping[str, tuple[str, ...]] = {
    "data": ("prepared", "streamed", "endless", "multi-label"),
    "workers": ("0", "2"),
    "schedule": ("none", "computed", "explicit", "each epoch", "plateau"),
    "accumulate": ("1", "2"),
    "average": ("no", "yes"),
    "validate": ("each epoch", "within epochs", "across epochs"),
    "until": ("steps", "epochs", "steps or epochs"),
    "step": ("ordinary", "in backward"),
    "saved": (
        "after a batch",
        "after half a step",
        "after the last batch",
        "before a batch",
        "in validation",
        "after validation",
        "after an epoch",
        "before an epoch",
        "out of steps",
        "out of time",
    ),
}
"""Values of each feature. Epochs of streamed data have a known number of batches; endless data has no epochs."""


def is_possible(combination: Combination) -> bool:
    """Return whether such a run is valid and, resumed, must equal an uninterrupted run."""
    several_batches_a_step = combination["accumulate"] == "2"
    if combination["step"] == "in backward" and several_batches_a_step:
        return False
    if combination["saved"] == "after half a step" and not several_batches_a_step:
        return False
    if combination["data"] == "endless":
        if combination["until"] == "epochs" or combination["validate"] == "each epoch":
            return False
        if combination["saved"] in ("after the last batch", "after an epoch", "before an epoch"):
            return False
    # a computed schedule depends on the number of steps, which differs in the interrupted run
    return not (combination["saved"] == "out of steps" and combination["schedule"] == "computed")


def all_combinations(
    features: Mapping[str, tuple[str, ...]] = FEATURES, is_possible: Callable[[Combination], bool] = is_possible
) -> Iterator[Combination]:
    for values in itertools.product(*features.values()):
        combination = dict(zip(features, values, strict=True))
        if is_possible(combination):
            yield combination


def covering_pairs(
    features: Mapping[str, tuple[str, ...]] = FEATURES, is_possible: Callable[[Combination], bool] = is_possible
) -> list[Combination]:
    """Choose few combinations that cover each possible pair of values; always the same ones.

    Args:
        features: values of each feature.
        is_possible: whether a combination exists.
    """
    return choose_covering(list(all_combinations(features, is_possible)))


def covering_moments() -> list[tuple[Combination, list[str]]]:
    """Choose runs, and several moments to save each of them at, that cover each possible pair of values of FEATURES."""
    run_features = {name: values for name, values in FEATURES.items() if name != "saved"}

    def saved(run: Combination) -> list[Combination]:
        return [each for moment in FEATURES["saved"] if is_possible(each := {**run, "saved": moment})]

    runs = covering_pairs(run_features, lambda run: bool(saved(run)))
    chosen = choose_covering([each for run in runs for each in saved(run)])
    return [(run, [each["saved"] for each in chosen if run.items() <= each.items()]) for run in runs]


def choose_covering(rows: list[Combination]) -> list[Combination]:
    """Choose few of the combinations that cover each pair of values in them; always the same ones."""
    numbers: dict[tuple[int, int, str, str], int] = {}
    covers = [_pairs_as_bits(tuple(row.values()), numbers) for row in rows]
    missing = (1 << len(numbers)) - 1
    chosen = []
    while missing:
        best = max(range(len(rows)), key=lambda row: (covers[row] & missing).bit_count())
        chosen.append(rows[best])
        missing &= ~covers[best]
    return chosen


def _pairs_as_bits(values: tuple[str, ...], numbers: dict[tuple[int, int, str, str], int]) -> int:
    bits = 0
    for (i, one), (j, other) in itertools.combinations(enumerate(values), 2):
        bits |= 1 << numbers.setdefault((i, j, one, other), len(numbers))
    return bits


def assert_equal(one: Any, other: Any, where: str) -> None:
    """Assert that nested values are equal, tensors bit for bit."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key, value in one.items():
            assert_equal(value, other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where
