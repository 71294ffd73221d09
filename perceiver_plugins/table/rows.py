"""Reader of table rows: numeric features by kind of column, and ids of categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from perceiver_plugins.sdk.data.cells import boolean, category, date, number
from perceiver_plugins.sdk.data.class_names import sort_names
from perceiver_plugins.sdk.data.dates import date_features
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table.adapters import FIRST_CATEGORY, MISSING_CATEGORY, UNSEEN_CATEGORY
from perceiver_plugins.table.kinds import categorical_columns, embedded_columns, feature_names, kind_of_column

MAX_UNSEEN_SHOWN = 3
"""Largest number of unseen categories in a message. Arbitrary."""


class Vocabulary:
    """Ids of the categories of a column.

    Args:
        categories: categories of the training data; all others are unseen. None: until :meth:`settle` is called, each
            new category gets an id.
    """

    def __init__(self, categories: Sequence[str] | None = None) -> None:
        self.ids = _assign_ids(categories or ())
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
        """Keep only the categories of the training rows, in alphabetical order, and update all ids in-place.

        Args:
            train: ids of the training rows (rows,).
            others: ids of the rows of each other split.
        """
        if self.is_settled:
            return
        names = self.categories
        seen = np.unique(train[train >= FIRST_CATEGORY]).astype(np.int64)
        kept = sort_names(names[index - FIRST_CATEGORY] for index in seen)
        self.ids, self.is_settled = _assign_ids(kept), True
        numbered = [self.ids.get(name, UNSEEN_CATEGORY) for name in names]
        new = np.array([MISSING_CATEGORY, UNSEEN_CATEGORY, *numbered], dtype=np.float64)
        for ids in (train, *others):
            old = ids.astype(np.int64)
            ids[:] = new[old]
            self.unseen.update(names[index - FIRST_CATEGORY] for index in old[ids == UNSEEN_CATEGORY].tolist())

    def report(self, column: str) -> list[str]:
        """Return a line about unseen categories, if any were read."""
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


def _assign_ids(categories: Iterable[str]) -> dict[str, int]:
    return {name: index for index, name in enumerate(categories, FIRST_CATEGORY)}


def _single_feature(read: Callable[[Any], float], value: Any) -> tuple[float]:
    return (read(value),)


def _date_features(with_time: bool, value: Any) -> list[float]:
    return date_features(date(value), with_time)


CELL_READERS: Mapping[str, Callable[[Any], Sequence[float]]] = {
    "number": partial(_single_feature, number),
    "boolean": partial(_single_feature, boolean),
    "date": partial(_date_features, False),
    "datetime": partial(_date_features, True),
}
"""Function that converts a cell to its numeric features, by kind of column."""


class RowReader:
    """Reader of rows of a table: numeric features, then ids of categories. Texts and images are not read.

    Args:
        names: names of the columns.
        kinds: kinds of the columns that do not contain numbers.
        categories: known categories of categorical columns; other columns get those that are read.
    """

    def __init__(
        self, names: Sequence[str], kinds: Mapping[str, str], categories: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.names = list(names)
        self.features = feature_names(names, kinds)
        known = categories or {}
        self.vocabularies = {name: Vocabulary(known.get(name)) for name in categorical_columns(names, kinds)}
        self.embedded = embedded_columns(names, kinds)
        others = {*self.vocabularies, *self.embedded}
        self._cells = {name: CELL_READERS[kind_of_column(name, kinds)] for name in names if name not in others}
        self._cells |= {
            name: partial(_single_feature, vocabulary.read) for name, vocabulary in self.vocabularies.items()
        }
        self.width = len(self.features) + len(self.vocabularies)

    def read(self, row: Mapping[str, Any], location: str, hint: str) -> list[float]:
        """Convert the cells of a row.

        Args:
            row: values by column.
            location: file and line of the row, for error messages.
            hint: advice at the end of an error message.

        Raises:
            DataError: if a cell is not of the kind of its column; the message names all such columns of the row.
        """
        return _read_cells(self._cells, row, location, hint)

    def report(self) -> list[str]:
        """Return a line for each column with unseen categories, and forget them."""
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
