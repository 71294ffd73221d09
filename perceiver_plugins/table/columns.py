"""Feature columns of a table: reading of cells, categories and scaling."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.cells import boolean, category, date, number
from perceiver_plugins.sdk.data.class_names import sort_names
from perceiver_plugins.sdk.data.dates import date_features
from perceiver_plugins.sdk.data.statistics import mean_and_std
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table.adapters import FIRST_CATEGORY, MISSING_CATEGORY, UNSEEN_CATEGORY
from perceiver_plugins.table.kinds import FEATURES
from perceiver_plugins.table.scaling import fit_quantiles, to_normal

SCALED_BY_QUANTILES = ("number", "date", "datetime")
"""Kinds of columns whose first feature is scaled by quantiles. Other features are 0 or 1, or from -1 to 1."""

MAX_UNSEEN_SHOWN = 3
"""Largest number of unseen categories in a message. Arbitrary."""


@dataclass(frozen=True)
class Columns:
    """Columns of a table with the statistics that scale their numbers.

    A row is an array of the numeric features of all columns, NaN where missing, followed by an id for each column of
    categories (:data:`MISSING_CATEGORY`, :data:`UNSEEN_CATEGORY`, or from :data:`FIRST_CATEGORY`).

    Attributes:
        names: names of the columns.
        mean: mean of each numeric feature, after scaling by quantiles.
        std: standard deviation of each numeric feature, after scaling by quantiles.
        kinds: kind of each column that does not contain numbers (:data:`~perceiver_plugins.table.kinds.FEATURES`).
        categories: categories of the training data of each column of categories.
        quantiles: quantiles by feature, for features that are scaled by them.
    """

    names: list[str]
    mean: list[float]
    std: list[float]
    kinds: dict[str, str] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    quantiles: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate values that may come from a checkpoint.

        Raises:
            ValueError: if a kind is unknown, if ``mean`` or ``std`` does not have one number per feature, or if
                there is no list of the categories of a column.
        """
        if unknown := set(self.kinds.values()).difference(FEATURES):
            raise ValueError(f"columns: unknown kind {min(unknown)!r} (this version is too old for the model)")
        if missing := set(self.category_names).difference(self.categories):
            raise ValueError(f"columns: no categories of {min(missing)!r}")
        for statistic in (self.mean, self.std):
            if np.asarray(statistic, dtype=np.float64).shape != (len(self.features),):
                raise ValueError("columns: must have a mean and a standard deviation for each name")

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        numbers: np.ndarray,
        kinds: Mapping[str, str] | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
        by_quantiles: bool = False,
    ) -> Self:
        """Compute the statistics of ``numbers`` (rows, m), ignoring NaN.

        A constant column gets a standard deviation of 1.

        Args:
            names: names of the columns.
            numbers: rows, of which ids of categories are not read.
            kinds: kinds of the columns that do not contain numbers.
            categories: categories of the columns of categories.
            by_quantiles: scale numbers and dates by their quantiles, before they are standardised.
        """
        known = dict(kinds or {})
        features = dict(zip(feature_names(names, known), numbers.T, strict=False))
        scaled = [name for name in names if by_quantiles and _kind(name, known) in SCALED_BY_QUANTILES]
        first_features = [feature_names([name], known)[0] for name in scaled]
        quantiles = {name: fit_quantiles(features[name]) for name in first_features}
        for name, values in quantiles.items():
            features[name] = to_normal(features[name], values)
        mean, std = mean_and_std(np.stack(list(features.values()), axis=1) if features else np.empty((len(numbers), 0)))
        found = {name: list(values) for name, values in (categories or {}).items()}
        return cls(list(names), mean.tolist(), std.tolist(), known, found, quantiles)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; of numbers alone, names and statistics only."""
        always = ("names", "mean", "std")
        return {name: value for name, value in asdict(self).items() if value or name in always}

    @cached_property
    def features(self) -> list[str]:
        """Names of the numeric features: of a column of numbers its name, of a date several."""
        return feature_names(self.names, self.kinds)

    @cached_property
    def category_names(self) -> list[str]:
        """Names of the columns of categories."""
        return [name for name in self.names if self.kinds.get(name) == "category"]

    @property
    def num_categories(self) -> list[int] | None:
        """Number of categories of each column of categories; None if there is no such column."""
        return [len(self.categories[name]) for name in self.category_names] or None

    @property
    def positions(self) -> list[str]:
        """Name of each value of a row: the numeric features, then the columns of categories."""
        return [*self.features, *self.category_names]

    def standardise(self, numbers: np.ndarray) -> Tensor:
        """Scale the numeric features of rows (..., m) by quantiles, if the columns have any, mean and standard
        deviation; float32."""
        numbers = numbers[..., : len(self.features)]
        if self.quantiles:
            scaled = [
                to_normal(numbers[..., index], self.quantiles[name]) if name in self.quantiles else numbers[..., index]
                for index, name in enumerate(self.features)
            ]
            numbers = np.stack(scaled, axis=-1)
        return torch.from_numpy(((numbers - self.mean) / self.std).astype(np.float32))

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the entries of a batch for ``rows`` (b, m + k): ``inputs`` (b, m) and, with k columns of categories,
        ``category_ids`` (b, k)."""
        inputs = {"inputs": self.standardise(rows)}
        if not self.category_names:
            return inputs
        return inputs | {"category_ids": torch.from_numpy(rows[..., len(self.features) :].astype(np.int64))}

    def row_reader(self) -> RowReader:
        """Create a reader of rows with these columns."""
        return RowReader(self.names, self.kinds, self.categories)


def _kind(name: str, kinds: Mapping[str, str]) -> str:
    return kinds.get(name, "number")


def feature_names(names: Iterable[str], kinds: Mapping[str, str]) -> list[str]:
    """Return the names of the numeric features of columns: "age", "day: sin of year"."""
    return [f"{name}: {part}" if part else name for name in names for part in FEATURES[_kind(name, kinds)]]


class Vocabulary:
    """Ids of the categories of a column.

    Args:
        categories: categories of the training data; other categories are unseen. None: all categories get an id until
            :meth:`settle` is called.
    """

    def __init__(self, categories: Sequence[str] | None = None) -> None:
        self.ids = _number(categories or ())
        self.is_settled = categories is not None
        self.unseen: Counter[str] = Counter()

    @property
    def categories(self) -> list[str]:
        """The categories, by id."""
        return list(self.ids)

    def read(self, value: Any) -> int:
        """Return the id of a cell.

        Raises:
            ValueError: if it is not a category.
        """
        name = category(value)
        if name is None:
            return MISSING_CATEGORY
        found = self.ids.get(name)
        if found is None and self.is_settled:
            self.unseen[name] += 1
            return UNSEEN_CATEGORY
        return self.ids.setdefault(name, len(self.ids) + FIRST_CATEGORY)

    def settle(self, train: np.ndarray, others: Sequence[np.ndarray]) -> None:
        """Keep the categories of the training rows, in alphabetical order, and number all ids again in place.

        Args:
            train: ids of the training rows (rows,).
            others: ids of the rows of each other split.
        """
        if self.is_settled:
            return
        names = self.categories
        seen = np.unique(train[train >= FIRST_CATEGORY]).astype(np.int64)
        kept = sort_names(names[index - FIRST_CATEGORY] for index in seen)
        self.ids, self.is_settled = _number(kept), True
        numbered = [self.ids.get(name, UNSEEN_CATEGORY) for name in names]
        new = np.array([MISSING_CATEGORY, UNSEEN_CATEGORY, *numbered], dtype=np.float64)
        for ids in (train, *others):
            old = ids.astype(np.int64)
            ids[:] = new[old]
            self.unseen.update(names[index - FIRST_CATEGORY] for index in old[ids == UNSEEN_CATEGORY].tolist())

    def report(self, column: str) -> list[str]:
        """Return a line if categories were read that the training data lacks."""
        if not self.unseen:
            return []
        shown = ", ".join(f"{name!r:.40} ({count:,})" for name, count in self.unseen.most_common(MAX_UNSEEN_SHOWN))
        more = ", ..." if len(self.unseen) > MAX_UNSEEN_SHOWN else ""
        count = self.unseen.total()
        values = "1 value is" if count == 1 else f"{count:,} values are"
        return [
            f"the column {column!r}: {values} not among the categories of the training data: {shown}{more} (read as "
            "unseen categories)"
        ]


def _number(categories: Iterable[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(categories, FIRST_CATEGORY)}


def _one(read: Callable[[Any], float], value: Any) -> tuple[float]:
    return (read(value),)


def _date(with_time: bool, value: Any) -> list[float]:
    return date_features(date(value), with_time)


CELL_READERS: Mapping[str, Callable[[Any], Sequence[float]]] = {
    "number": partial(_one, number),
    "boolean": partial(_one, boolean),
    "date": partial(_date, False),
    "datetime": partial(_date, True),
}
"""Function that converts a cell to its numeric features, by kind of column."""


class RowReader:
    """Reader of rows of a table: numeric features, then ids of categories.

    Args:
        names: names of the columns.
        kinds: kinds of the columns that do not contain numbers.
        categories: known categories of columns of categories; other columns get those that are read.
    """

    def __init__(
        self, names: Sequence[str], kinds: Mapping[str, str], categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.names = list(names)
        self.features = feature_names(names, kinds)
        known = categories or {}
        of_categories = [name for name in names if kinds.get(name) == "category"]
        self.vocabularies = {name: Vocabulary(known.get(name)) for name in of_categories}
        self._cells = {name: CELL_READERS[_kind(name, kinds)] for name in names if name not in self.vocabularies}
        self._cells |= {name: partial(_one, vocabulary.read) for name, vocabulary in self.vocabularies.items()}
        self.width = len(self.features) + len(self.vocabularies)

    def read(self, row: Mapping[str, Any], location: str, hint: str) -> list[float]:
        """Convert the cells of a row.

        Args:
            row: values by column.
            location: file and line of the row, for error messages.
            hint: what to do about an error, for its message.

        Raises:
            DataError: if a cell is not of the kind of its column; the message names all such columns of the row.
        """
        return _read_cells(self._cells, row, location, hint)

    def report(self) -> list[str]:
        """Return a line for each column with categories that the training data lacks, once."""
        lines = [line for name, vocabulary in self.vocabularies.items() for line in vocabulary.report(name)]
        for vocabulary in self.vocabularies.values():
            vocabulary.unseen.clear()
        return lines


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
    cells = dict.fromkeys(names, CELL_READERS["number"])
    return _read_cells(cells, row, location, f"{flag} chooses the columns to read")


def _read_cells(
    cells: Mapping[str, Callable[[Any], Sequence[float]]], row: Mapping[str, Any], location: str, hint: str
) -> list[float]:
    parsed: list[float] = []
    errors = []
    for name, read in cells.items():
        try:
            parsed += read(row.get(name))
        except ValueError as error:
            errors.append(f"{name}: {error}")
    if errors:
        raise DataError(f"{location}: {'; '.join(errors)} ({hint})")
    return parsed
