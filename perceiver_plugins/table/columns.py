"""Feature columns of a table: parsing of numbers and standardisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.cells import number
from perceiver_plugins.sdk.data.statistics import mean_and_std
from perceiver_plugins.sdk.errors import DataError


@dataclass(frozen=True)
class Columns:
    """Numeric columns and the statistics that standardise them.

    Attributes:
        names: names of the m columns.
        mean: mean of each column.
        std: standard deviation of each column.
    """

    names: list[str]
    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        """Validate values that may come from a checkpoint.

        Raises:
            ValueError: if ``mean`` or ``std`` does not have one number per name.
        """
        for statistic in (self.mean, self.std):
            if np.asarray(statistic, dtype=np.float64).shape != (len(self.names),):
                raise ValueError("columns: must have a mean and a standard deviation for each name")

    @classmethod
    def fit(cls, names: Sequence[str], numbers: np.ndarray) -> Self:
        """Compute mean and standard deviation of ``numbers`` (rows, m), ignoring NaN.

        A constant column gets a standard deviation of 1.
        """
        mean, std = mean_and_std(numbers)
        return cls(list(names), mean.tolist(), std.tolist())

    def standardise(self, numbers: np.ndarray) -> Tensor:
        """Standardise ``numbers`` (..., m): subtract the mean and divide by the standard deviation; float32."""
        return torch.from_numpy(((numbers - self.mean) / self.std).astype(np.float32))


def read_numbers(row: Mapping[str, Any], names: Sequence[str], location: str, flag: str) -> list[float]:
    """Parse the numbers in the columns ``names`` of a row; NaN where missing.

    Args:
        row: values by column.
        names: the columns to read.
        location: file and line of the row, for error messages.
        flag: source of ``names`` in error messages: a flag or "the model".

    Raises:
        DataError: if a value is not a number; the message names all such columns of the row.
    """
    parsed, errors = [], []
    for name in names:
        try:
            parsed.append(number(row.get(name)))
        except ValueError as error:
            errors.append(f"{name}: {error}")
    if errors:
        raise DataError(f"{location}: {'; '.join(errors)} ({flag} chooses the columns to read)")
    return parsed
