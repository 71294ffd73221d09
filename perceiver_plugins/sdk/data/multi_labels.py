"""Class labels in tables: one class per row, or any number of classes (multi-label)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_plugins.sdk.data.cells import is_missing, kind_of
from perceiver_plugins.sdk.data.class_names import ClassNames
from perceiver_plugins.sdk.data.table_rows import SPELLED_TABS, Row
from perceiver_plugins.sdk.errors import DataError, list_first
from perceiver_registry.errors import UserError

PRESENT, ABSENT = ("1", "1.0", "true"), ("0", "0.0", "false")
"""Spellings of the presence and absence of a class in its 0/1 column, in lower case."""


class SingleLabels:
    """Reader of one class per row, with the interface of :class:`MultiLabels`.

    Args:
        column: the label column.
        label_names: names of the classes, by index. None: those in the training data.
    """

    def __init__(self, column: str, label_names: Sequence[str] | None = None) -> None:
        self.column = column
        self._classes = ClassNames(column, label_names)

    @property
    def names(self) -> list[str]:
        """Names of the classes, by index."""
        return self._classes.names

    def read(self, row: Mapping[str, Any], location: str) -> str:
        """Read the name of a row's class, for :meth:`encode`.

        Raises:
            DataError: if it is missing or unknown.
        """
        return self._classes.read(row[self.column], location)

    def settle(self) -> None:
        """Number the classes, after all training data has been read."""
        self._classes.settle()

    def recall(self, names: Sequence[str]) -> None:
        """Use the classes of a trained model, without training data."""
        self._classes.recall(names)

    def encode(self, values: Iterable[str]) -> np.ndarray:
        """Return class indices (n,), int64, of names that :meth:`read` returned."""
        return np.array([self._classes.numbers[name] for name in values], dtype=np.int64)

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        """Return warnings about the classes of the training data, one line each."""
        return self._classes.notes() if split == "train" else []


class MultiLabels:
    """Reader of any number of classes per row.

    A single label column has the names of a row's classes, as a list or as separated text; an empty list or text means
    no classes. Several label columns have 0 or 1 (or false or true), each for the class that it is named after; an
    empty cell is an unknown label, which losses and metrics ignore.

    As for :class:`~perceiver_plugins.sdk.data.class_names.ClassNames`, first read all training data, then call
    :meth:`settle`, then read the other splits. Without training data, call :meth:`recall` first.

    Args:
        columns: the label columns.
        separator: separator of the names in a single column; ``\\t`` and "tab" mean a tab. None: the column has lists.
        label_names: names of the classes of a single column, by index. None: those in the training data.

    Raises:
        UserError: if the arguments exclude each other.
    """

    def __init__(
        self, columns: Sequence[str], separator: str | None = None, label_names: Sequence[str] | None = None
    ) -> None:
        self.columns = list(columns)
        self.separator = SPELLED_TABS.get(separator or "", separator)
        self.has_column_per_class = len(self.columns) > 1
        if len(set(self.columns)) < max(1, len(self.columns)):
            raise UserError(f"label_column={self.columns}: must name different columns")
        if separator is not None and (self.has_column_per_class or not separator):
            problem = "has no effect with several label columns (leave it out)" if separator else "must not be empty"
            raise UserError(f"label_separator={separator!r}: {problem}")
        if label_names is not None and self.has_column_per_class:
            raise UserError(
                "label_names: has no effect with several label columns, which name the classes (leave it out)"
            )
        self._classes = ClassNames(self.columns[0], label_names)

    @property
    def names(self) -> list[str]:
        """Names of the classes, by index."""
        return self.columns if self.has_column_per_class else self._classes.names

    def read(self, row: Mapping[str, Any], location: str) -> list[Any]:
        """Read the classes of a row, for :meth:`encode`.

        Args:
            row: values by column.
            location: file and line of the row, for messages.

        Returns:
            Names of the classes; with a column for each class, one number per column: 0, 1 or NaN.

        Raises:
            DataError: if a value has another form, or if a class is not in the training data.
        """
        if self.has_column_per_class:
            return [_presence(row.get(column), column, location) for column in self.columns]
        labels = self._split(row[self.columns[0]], location)
        return list(dict.fromkeys(self._classes.read(label, location) for label in labels))

    def _split(self, value: Any, location: str) -> list[Any]:
        if value is None or value != value:
            return []
        if isinstance(value, list):
            return value
        if self.separator is None:
            raise DataError(
                f"{location}: {self._classes.where} must list the classes of the row, got {kind_of(value)} "
                f"({value!r:.40}; name the text between them in label_separator)"
            )
        parts = value.split(self.separator) if isinstance(value, str) else [value]
        return [part for each in parts if (part := each.strip() if isinstance(each, str) else each) != ""]

    def settle(self) -> None:
        """Number the classes, after all training data has been read.

        Raises:
            DataError: if there is a single class, or implausibly many.
        """
        if not self.has_column_per_class:
            self._classes.settle()

    def recall(self, names: Sequence[str]) -> None:
        """Use the classes of a trained model, without training data.

        Raises:
            DataError: if these are not the label columns.
        """
        if self.has_column_per_class and list(names) != self.columns:
            raise DataError(
                f"label_column: {list_first(self.columns)} are not the classes of the model ({list_first([*names])})"
            )
        self._classes.recall(names)

    def encode(self, values: Iterable[Sequence[Any]]) -> np.ndarray:
        """Return labels (n, classes), float32: 0, 1, or NaN where unknown.

        Args:
            values: results of :meth:`read`.
        """
        if self.has_column_per_class:
            return np.array([*values], dtype=np.float32).reshape(-1, len(self.columns))
        rows = [*values]
        labels = np.zeros((len(rows), len(self.names)), dtype=np.float32)
        for row, names in zip(labels, rows, strict=True):
            row[[self._classes.numbers[name] for name in names]] = 1
        return labels

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        """Return the names of the classes, and the number of training examples of each.

        Args:
            labels: (n, classes) labels of the training data.
        """
        return {"label_names": self.names, "class_counts": count_examples(labels), "multi_label": True}

    def notes(self, labels: np.ndarray, split: str) -> list[str]:
        """Return warnings about the labels of a split, one line each.

        Args:
            labels: (n, classes).
            split: name of the split.
        """
        found = []
        if unknown := int(np.isnan(labels).sum()):
            found.append(f"{split}: {unknown:,} of {labels.size:,} labels are missing and ignored")
        if split != "train":
            return found
        for value, problem in ((1, "without a training example"), (0, "of every training example")):
            names = [name for name, column in zip(self.names, labels.T, strict=True) if not (column == value).any()]
            if names:
                found.append(f"classes {problem}: {list_first(names)} ({len(names)} of {len(self.names)})")
        if self.separator is not None and not (labels.sum(axis=1) > 1).any():
            found.append(f"no example of the training data has several classes (label_separator={self.separator!r})")
        return found + ([] if self.has_column_per_class else self._classes.notes())


def count_examples(labels: np.ndarray) -> list[int]:
    """Return the number of examples of each class; labels (n, classes) are 0, 1 or NaN."""
    counts: list[int] = (labels == 1).sum(axis=0).tolist()
    return counts


def class_reader(columns: Sequence[str], separator: str | None, rows: Iterable[Row] = ()) -> SingleLabels | MultiLabels:
    """Create the reader of the classes of a table, single-label or multi-label.

    Args:
        columns: the label columns.
        separator: separator of the names in a single column. None: each row has a name or a list.
        rows: rows whose first label decides between names and lists; read only if necessary.

    Raises:
        UserError: if the arguments exclude each other.
    """
    if not columns or declares_multi_label(columns, separator) or has_lists(rows, columns[0]):
        return MultiLabels(columns, separator)
    return SingleLabels(columns[0])


def declares_multi_label(columns: Sequence[str], separator: str | None) -> bool:
    """Return whether the options of label columns are those of multi-label data. Lists are multi-label without them."""
    return len(columns) > 1 or separator is not None


def has_lists(rows: Iterable[Row], column: str) -> bool:
    """Return whether a column has lists, by its first value that is not null."""
    return isinstance(next((row[column] for _, row in rows if row[column] is not None), None), list)


def _presence(value: Any, column: str, location: str) -> float:
    """Convert a cell of a 0/1 column to 0, 1 or, if it is missing, NaN."""
    if is_missing(value):
        return np.nan
    text = str(value).strip().lower()
    if text in PRESENT or text in ABSENT:
        return float(text in PRESENT)
    raise DataError(
        f"{location}: {column!r} must be 0 or 1 (or false or true), as each of several label columns is a class, got "
        f"{value!r:.40}"
    )
