"""Deterministic splits. Recorded results depend on which examples they select."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from perceiver_plugins.sdk.data.splits import (
    check_fraction,
    draw,
    draw_groups,
    first_of_each_class,
    permutation,
    stratified_split,
)
from perceiver_registry.errors import UserError

LABELS = torch.tensor([0, 1] * 10 + [0] * 5 + [2])


def test_splits_equal_those_of_recorded_runs() -> None:
    torch.manual_seed(99)
    np.random.seed(99)
    assert permutation(8).tolist() == [3, 6, 4, 0, 7, 5, 2, 1]
    assert np.flatnonzero(draw(20, 4)).tolist() == [0, 2, 5, 17]
    assert draw_groups("abcdefghij", 0.3) == {"c", "e", "g"}
    for round_sums in (False, True):
        parts = stratified_split(LABELS, 0.1, 0.2, round_sums=round_sums)
        assert [part.tolist() for part in parts[1:]] == [[4, 11, 21], [0, 6, 9, 19, 20]]


def test_fractions_of_each_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 20 + [2])
    rest, validation, test = stratified_split(labels, 0.1, 0.2)
    assert sorted([*rest, *validation, *test]) == list(range(31))
    assert Counter(labels[validation].tolist()) == {0: 1, 1: 2}
    assert Counter(labels[test].tolist()) == {0: 2, 1: 4}
    assert labels[rest].unique().tolist() == [0, 1, 2]
    assert all(np.array_equal(part, np.sort(part)) for part in (rest, validation, test))


def test_rounded_sums_of_fractions() -> None:
    labels = torch.tensor([0] * 100 + [1] * 20 + [2] * 2 + [3])[torch.randperm(123)]
    parts = stratified_split(labels, 0.15, 0.15, round_sums=True)
    assert sorted(np.concatenate(parts).tolist()) == list(range(123))
    counts = [torch.bincount(labels[torch.from_numpy(part)], minlength=4).tolist() for part in parts]
    assert counts == [[70, 14, 1, 1], [15, 3, 1, 0], [15, 3, 0, 0]]
    # 0.15 * 178 is 26.7, 0.3 * 178 is 53.4
    sizes = [
        [len(part) for part in stratified_split(np.zeros(178), 0.15, 0.15, round_sums=way)] for way in (True, False)
    ]
    assert sizes == [[125, 27, 26], [124, 27, 27]]


def test_empty_data_is_split() -> None:
    assert [part.tolist() for part in stratified_split(np.zeros(0), 0.1)] == [[], []]


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 1), (0.3, 3), (1.0, 10)])
def test_groups_are_drawn(fraction: float, count: int) -> None:
    assert len(draw_groups(range(10), fraction)) == count


@pytest.mark.parametrize(
    ("sizes", "fraction", "expected"),
    [
        ([10, 1], 0.5, [5, 0]),
        ([10, 1], 0.99, [9, 0]),
        ([4, 3], 0.05, [1, 0]),
        ([1], 0.5, [0]),
    ],
)
def test_first_examples_of_each_class_are_selected(sizes: list[int], fraction: float, expected: list[int]) -> None:
    classes = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(0).permutation(len(classes)).astype(np.uint64)
    chosen = first_of_each_class(order, classes, fraction)
    assert np.bincount(classes[chosen], minlength=len(sizes)).tolist() == expected
    for label in range(len(sizes)):
        ranks = np.sort(order[classes == label])
        assert set(order[chosen & (classes == label)]) == set(ranks[: expected[label]])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_invalid_fractions_are_rejected(fraction: float) -> None:
    with pytest.raises(UserError, match=f"val_fraction={fraction} must be more than 0 and less than 1"):
        check_fraction(fraction)
