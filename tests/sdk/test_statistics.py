"""Mean and standard deviation of numbers of any magnitude."""

from __future__ import annotations

import numpy as np
import pytest

from perceiver_plugins.sdk.data.statistics import mean_and_std, refuse_constant
from perceiver_plugins.sdk.errors import DataError


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1.0, 1e30, 1e300])
def test_statistics_of_any_magnitude(scale: float) -> None:
    numbers = np.array([[1.0], [2.0], [np.nan], [6.0]]) * scale
    mean, std = mean_and_std(numbers)
    assert mean / scale == pytest.approx([3.0])
    assert std / scale == pytest.approx([np.std([1, 2, 6])])


def test_statistics_far_from_zero() -> None:
    mean, std = mean_and_std(1.7e9 + np.array([[0.0], [1.0], [2.0]]))
    assert mean - 1.7e9 == pytest.approx([1.0], abs=1e-6)
    assert std == pytest.approx([np.std([0, 1, 2])], abs=1e-6)


def test_constant_columns() -> None:
    mean, std = mean_and_std(np.array([[0.1, np.nan], [0.1, np.nan], [0.1, np.nan]]))
    assert (mean.tolist(), std.tolist()) == ([0.1, 0.0], [1.0, 1.0])


@pytest.mark.parametrize(("values", "message"), [([5.0, 5.0, np.nan], "are all 5"), ([np.nan] * 3, "are all missing")])
def test_constant_targets_are_rejected(values: list[float], message: str) -> None:
    targets = np.array([[1.0, 2.0, 3.0], values]).T
    with pytest.raises(DataError, match=f"column 'b' of the training data {message}: nothing to learn"):
        refuse_constant(["a", "b"], targets)
