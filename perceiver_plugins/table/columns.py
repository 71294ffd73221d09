"""The columns of a table that a model reads: from what stands in a row to standardised numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.training.errors import DataError

MISSING = ("", "na", "n/a", "nan", "null")
"""What stands for a missing number where there is text, in any case."""


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

    @classmethod
    def of(cls, names: Sequence[str], numbers: np.ndarray) -> Self:
        """Columns whose mean and standard deviation are those of ``numbers`` (rows, m), NaN left out.

        A column that is the same in all rows has a standard deviation of 1 here.
        """
        given = np.ma.masked_invalid(numbers)
        varies = given.max(axis=0).filled(0.0) > given.min(axis=0).filled(0.0)
        std = np.where(varies, given.std(axis=0).filled(1.0), 1.0)
        return cls(list(names), given.mean(axis=0).filled(0.0).tolist(), std.tolist())

    def standardise(self, numbers: np.ndarray) -> Tensor:
        """``numbers`` (..., m) in standard deviations from the mean, as 32-bit floats."""
        return torch.from_numpy(((numbers - self.mean) / self.std).astype(np.float32))


def number(value: Any) -> float:
    """The number that stands in a table's cell; NaN where it is missing.

    Raises:
        ValueError: if it is something else, or not finite.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return math.nan
    try:
        parsed = float(value)
    except (TypeError, ValueError):
        parsed = math.inf
    if math.isinf(parsed):
        raise ValueError(f"{value!r} is no finite number")
    return parsed


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
    if None in row:
        raise DataError(f"{place}: there are more values than columns")
    parsed, others = [], []
    for name in names:
        try:
            parsed.append(number(row.get(name)))
        except ValueError as error:
            others.append(f"{name}: {error}")
    if others:
        raise DataError(f"{place}: {'; '.join(others)} ({flag} says which columns to read)")
    return parsed
