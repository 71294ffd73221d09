"""The columns of a table that a model reads: from what stands in a row to standardised numbers."""

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
    """Columns of numbers, and what these are standardised by.

    Attributes:
        names: names of the m columns.
        mean: mean of each.
        std: standard deviation of each.
    """

    names: list[str]
    mean: list[float]
    std: list[float]

    def __post_init__(self) -> None:
        """Check the columns, which a checkpoint may describe.

        Raises:
            ValueError: if there is not one mean and one standard deviation for each name.
        """
        for numbers in (self.mean, self.std):
            if np.asarray(numbers, dtype=np.float64).shape != (len(self.names),):
                raise ValueError("columns: there must be a mean and a standard deviation for each name")

    @classmethod
    def of(cls, names: Sequence[str], numbers: np.ndarray) -> Self:
        """Columns whose mean and standard deviation are those of ``numbers`` (rows, m), NaN left out.

        A column that is the same in all rows has a standard deviation of 1 here.
        """
        mean, std = mean_and_std(numbers)
        return cls(list(names), mean.tolist(), std.tolist())

    def standardise(self, numbers: np.ndarray) -> Tensor:
        """``numbers`` (..., m) in standard deviations from the mean, as 32-bit floats."""
        return torch.from_numpy(((numbers - self.mean) / self.std).astype(np.float32))


def numbers(row: Mapping[str, Any], names: Sequence[str], place: str, flag: str) -> list[float]:
    """The numbers in the columns ``names`` of a row; NaN where one is missing.

    Args:
        row: values by column.
        names: the columns to read.
        place: where the row is, for errors.
        flag: what says which columns are read, for errors.

    Raises:
        DataError: if there are other things than numbers; the message names all such columns of the row.
    """
    parsed, others = [], []
    for name in names:
        try:
            parsed.append(number(row.get(name)))
        except ValueError as error:
            others.append(f"{name}: {error}")
    if others:
        raise DataError(f"{place}: {'; '.join(others)} ({flag} says which columns to read)")
    return parsed
