"""Statistics of columns of numbers, in double precision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perceiver_plugins.sdk.errors import DataError


def mean_and_std(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and population standard deviation of each column, ignoring NaN.

    Columns without two different numbers have a standard deviation of 1; columns without any number a mean of 0.

    Args:
        numbers: (rows, m).

    Returns:
        (m,) and (m,), float64.
    """
    pairs = [_mean_and_std(_known(column)) for column in numbers.T]
    mean, std = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return mean, std


def _mean_and_std(known: np.ndarray) -> tuple[float, float]:
    if not known.size:
        return 0.0, 1.0
    lowest, highest = known.min(), known.max()
    if lowest == highest:
        return float(lowest), 1.0
    # Scaling before sums and squares avoids overflow and underflow.
    scale = max(abs(lowest), abs(highest))
    mean = float((known / scale).mean() * scale)
    deviations = known - mean
    spread = np.abs(deviations).max()
    return mean, float(np.sqrt(((deviations / spread) ** 2).mean()) * spread)


def refuse_constant(names: Sequence[str], targets: np.ndarray) -> None:
    """Raise DataError if one of the targets (rows, t) is constant or missing in the training data."""
    for name, column in zip(names, targets.T, strict=True):
        known = _known(column)
        if not known.size or known.min() == known.max():
            what = f"are all {known[0]:g}" if known.size else "are all missing"
            raise DataError(f"the numbers in the column {name!r} of the training data {what}: nothing to learn")


def missing_targets(names: Sequence[str], targets: np.ndarray, split: str) -> list[str]:
    """Return a line for each of the targets (rows, t) of a split with missing values."""
    counts = np.isnan(targets).sum(axis=0)
    return [
        f"{split}: {count:,} of {len(targets):,} numbers in the column {name!r} are missing and ignored"
        for name, count in zip(names, counts.tolist(), strict=True)
        if count
    ]


def _known(column: np.ndarray) -> np.ndarray:
    exact = column.astype(np.float64)
    return exact[~np.isnan(exact)]
