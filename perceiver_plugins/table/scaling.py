"""Quantile scaling of numbers to a normal distribution, as scikit-learn's ``QuantileTransformer`` does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

MAX_QUANTILES = 200
"""Most quantiles of a column, which are stored in checkpoints. Arbitrary; scikit-learn's default is 1,000."""

BOUND = 1e-7
"""Probability at which the normal distribution is clipped, to -5.2 and 5.2; that of scikit-learn."""


def fit_quantiles(numbers: np.ndarray, max_quantiles: int = MAX_QUANTILES) -> list[float]:
    """Compute equidistant quantiles of ``numbers`` (rows,), ignoring NaN; an empty list without any number."""
    known = numbers[~np.isnan(numbers)]
    if not known.size:
        return []
    percentiles = np.linspace(0, 100, min(max_quantiles, known.size))
    return np.maximum.accumulate(np.percentile(known, percentiles)).tolist()


def to_normal(numbers: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Map ``numbers`` (...) to the normal distribution by their rank among ``quantiles``. NaN remains NaN.

    Ranks are interpolated; among equal quantiles, the rank is the mean of the lowest and the highest one. Numbers
    beyond the quantiles are mapped to the lowest or highest value.
    """
    if not quantiles:
        return np.where(np.isnan(numbers), np.nan, 0.0)
    values = np.asarray(quantiles, dtype=np.float64)
    ranks = np.linspace(0, 1, len(values))
    highest = np.interp(numbers, values, ranks)
    lowest = -np.interp(-numbers, -values[::-1], -ranks[::-1])
    rank = np.where(numbers <= values[0], 0.0, np.where(numbers >= values[-1], 1.0, 0.5 * (highest + lowest)))
    rank = np.where(np.isnan(numbers), np.nan, rank)
    normal = torch.special.ndtri(torch.from_numpy(np.asarray(rank, dtype=np.float64))).numpy()
    bound = float(torch.special.ndtri(torch.tensor(BOUND - np.spacing(1), dtype=torch.float64)))
    return np.clip(normal, bound, -bound)
