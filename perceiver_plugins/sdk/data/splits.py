"""Splits of a data set: which examples are set aside, the same ones on each run.

Random generators have fixed seeds of their own, independent of the seed of a run: recorded results and resumed runs
depend on which examples are in which split. scikit-learn's splitters draw other permutations, and would change them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from perceiver_registry.errors import UserError


def check_fraction(val_fraction: float) -> None:
    """Raise UserError unless the fraction leaves something on either side."""
    if not 0 < val_fraction < 1:
        raise UserError(f"val_fraction={val_fraction} must be more than 0 and less than 1")


def permutation(size: int) -> np.ndarray:
    """Return the integers below ``size`` in a random order, always the same."""
    return np.random.Generator(np.random.Philox(0)).permutation(size)


def draw(size: int, count: int) -> np.ndarray:
    """Draw ``count`` of ``size`` examples at random, always the same ones.

    Returns:
        (size,) bool, True for those drawn.
    """
    drawn = np.zeros(size, dtype=bool)
    drawn[np.random.Generator(np.random.Philox(0)).choice(size, count, replace=False)] = True
    return drawn


def draw_groups(groups: Sequence[Hashable], fraction: float) -> set[Any]:
    """Draw a fraction of the groups, at least one, always the same ones.

    Args:
        groups: the groups, each once, in an order that does not change from run to run.
        fraction: part of the groups, from 0 to 1.
    """
    chosen = np.random.default_rng(0).permutation(len(groups))[: max(1, round(fraction * len(groups)))]
    return {groups[index] for index in chosen}


def stratified_split(labels: Any, *fractions: float, round_sums: bool = False) -> list[np.ndarray]:
    """Set parts of the examples aside, class by class, always the same ones.

    Of each class, at least one example stays. As far as there are others, each part gets at least one; with
    ``round_sums``, the first part does.

    Args:
        labels: (n,) the classes of the examples, an array or a tensor.
        fractions: the size of each part.
        round_sums: Round the sums of fractions of a class to whole examples, instead of each fraction.

    Returns:
        Indices of the examples that stay, then of those in each part, in ascending order.
    """
    labels = np.asarray(labels)
    rng = np.random.default_rng(0)
    parts: list[list[np.ndarray]] = [[] for _ in range(len(fractions) + 1)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        size = len(members)
        if round_sums:
            ends = np.rint(np.cumsum(fractions) * size)
        else:
            ends = np.cumsum(np.rint(np.array(fractions) * size).clip(1))
        ends = ends.clip(1).clip(None, size - 1).astype(int)
        for part, chosen in zip(parts, np.split(members, ends), strict=True):
            part.append(chosen)
    *aside, rest = (np.sort(np.concatenate(part)) if part else np.empty(0, dtype=np.int64) for part in parts)
    return [rest, *aside]


def first_of_each_class(order: np.ndarray, classes: np.ndarray, fraction: float) -> np.ndarray:
    """Choose a fraction of each class by a given order. Each class keeps at least one example.

    Args:
        order: (n,) the keys that decide, the lowest ones first; equal keys of a class stay on one side.
        classes: (n,) indices of the classes, from 0.
        fraction: part of each class, rounded; if that is 0 for all, one example of the largest class is chosen.

    Returns:
        (n,) bool, True for those chosen.
    """
    sizes = np.bincount(classes)
    counts = np.minimum(np.rint(sizes * fraction).astype(np.int64), sizes - 1)
    if not counts.any():
        counts[sizes.argmax()] = min(1, sizes.max() - 1)
    # The first of each class that is not chosen: all before it are.
    ranked = order[np.lexsort((order, classes))]
    limits = ranked[np.cumsum(sizes) - sizes + counts]
    return order < limits[classes]
