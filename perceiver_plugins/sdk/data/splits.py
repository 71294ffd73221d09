"""Deterministic splits of data sets.

Random generators have fixed seeds, independent of the seed of a run: recorded results and resumed runs depend on the
splits. scikit-learn's splitters draw other permutations, and would change them.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from perceiver_registry.errors import UserError


def check_fraction(val_fraction: float) -> None:
    """Raise UserError unless the fraction is between 0 and 1."""
    if not 0 < val_fraction < 1:
        raise UserError(f"val_fraction={val_fraction} must be more than 0 and less than 1")


def permutation(size: int) -> np.ndarray:
    """Return a fixed random permutation of the integers below ``size``."""
    return np.random.Generator(np.random.Philox(0)).permutation(size)


def draw(size: int, count: int) -> np.ndarray:
    """Draw a fixed random subset of ``count`` of ``size`` examples.

    Returns:
        (size,) bool, True for those drawn.
    """
    drawn = np.zeros(size, dtype=bool)
    drawn[np.random.Generator(np.random.Philox(0)).choice(size, count, replace=False)] = True
    return drawn


def draw_groups(groups: Sequence[Hashable], fraction: float) -> set[Any]:
    """Draw a fixed random subset of the groups, at least one.

    Args:
        groups: the groups, without repetition, in the same order in each run.
        fraction: fraction of the groups, from 0 to 1.
    """
    chosen = np.random.default_rng(0).permutation(len(groups))[: max(1, round(fraction * len(groups)))]
    return {groups[index] for index in chosen}


def stratified_split(labels: Any, *fractions: float, round_sums: bool = False) -> list[np.ndarray]:
    """Split examples class by class, at random but the same way in each run.

    At least one example of each class remains in the first split. The other splits also have at least one if the class
    has enough examples; with ``round_sums``, this holds only for the second split.

    Args:
        labels: (n,) classes of the examples, an array or a tensor.
        fractions: fraction of the examples in each split after the first.
        round_sums: Round cumulative fractions of a class to whole examples, instead of each fraction.

    Returns:
        Indices of the examples of each split, in ascending order. The first split has the remaining examples.
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
    """Select a fraction of each class by sort keys. At least one example of each class is not selected.

    Args:
        order: (n,) sort keys; the lowest are selected. Examples of a class with equal keys are not separated.
        classes: (n,) class indices.
        fraction: fraction of each class, rounded. If that is 0 for all, one example of the largest class is selected.

    Returns:
        (n,) bool, True for selected examples.
    """
    sizes = np.bincount(classes)
    counts = np.minimum(np.rint(sizes * fraction).astype(np.int64), sizes - 1)
    if not counts.any():
        counts[sizes.argmax()] = min(1, sizes.max() - 1)
    # The first key of each class that is not selected.
    ranked = order[np.lexsort((order, classes))]
    limits = ranked[np.cumsum(sizes) - sizes + counts]
    return order < limits[classes]
