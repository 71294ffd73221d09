"""Names of the classes in a column of labels: validation and numbering."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_plugins.sdk.data.cells import kind_of
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError, list_first
from perceiver_registry.errors import UserError, near

MANY_CLASSES = 1000
"""Number of classes above which labels with few examples each are rejected as text or numbers. Arbitrary."""

MAX_NUMBER_CLASSES = 20
"""Largest number of classes whose names are whole numbers that is not reported, as they may be numbers. Arbitrary."""

NUMBERS_HINT = "to predict numbers, use --task=regression or, in Python, target='number'"
"""Advice in messages on numbers as classes."""

MAX_REPORTED_GROUPS = 3
"""Largest number of groups of similar names in a report. Arbitrary."""


class ClassNames:
    """Names of the classes in a column: given, or those in the training data.

    First read all training data, then call :meth:`settle`, then read the other splits. Without training data, call
    :meth:`recall` first.

    If names are given, integers (also as text) that are not names are indices of them. Otherwise integers and booleans
    (false, true) are names. Names of the training data are sorted, integers by value. All labels of a column have the
    same type: text, number or boolean.

    Args:
        column: Name of the column.
        names: Names of the classes, by index; None: those in the training data.
    """

    def __init__(self, column: str, names: Sequence[str] | None = None) -> None:
        if names is not None and len(set(names)) < max(2, len(names)):
            raise UserError(f"label_names={list(names)}: must be at least two different names")
        self.where = f"the column {column!r} (label_column)"
        self.given = names is not None
        self.names = list(names or [])
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.counts: Counter[str] = Counter()
        self.settled = False
        self._kind = ""
        self._kind_location = ""

    def read(self, value: Any, location: str) -> str:
        """Convert a label to the name of its class.

        Raises:
            DataError: If it is missing, has another type than those before it, or is unknown.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # integers are stored as floats in columns with missing values
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise DataError(f"{location}: the label in {self.where} is missing")
        self._check_kind(value, location)
        name = str(value).lower() if isinstance(value, bool) else str(value)
        if name not in self.numbers:
            name = self._given_name(value, name, location) if self.given else self._new_name(name, location)
        if not self.settled:
            self.counts[name] += 1
        return name

    def _check_kind(self, value: Any, location: str) -> None:
        if not isinstance(value, str | int):
            hint = f"; {NUMBERS_HINT}" if isinstance(value, float) else ""
            raise DataError(
                f"{location}: {self.where} must contain classes (texts, whole numbers or booleans), "
                f"not {kind_of(value)} ({value!r:.40}){hint}"
            )
        kind = kind_of(value)
        if not self._kind:
            self._kind, self._kind_location = kind, location
        elif kind != self._kind:
            raise DataError(
                f"{location}: the label {value!r:.40} in {self.where} is {kind}, but {self._kind} in "
                f"{self._kind_location} (all labels must have the same type)"
            )

    def _given_name(self, value: str | int, name: str, location: str) -> str:
        try:
            number = int(value)
        except ValueError:
            hint = near(name, self.names)
            raise DataError(f"{location}: the label {name!r:.60} is not in label_names ({hint:.200})") from None
        if 0 <= number < len(self.names):
            return self.names[number]
        hint = " (-1 means a missing label in some data sets)" if number == -1 else ""
        raise DataError(
            f"{location}: the label {number} is out of range: "
            f"label_names has names for 0 to {len(self.names) - 1}{hint}"
        )

    def _new_name(self, name: str, location: str) -> str:
        if self.settled:
            hint = near(name, self.names)
            raise DataError(
                f"{location}: the label {name!r:.60} in {self.where} does not occur in the training data ({hint:.200})"
            )
        return name

    def settle(self) -> None:
        """Number the names, after all training data has been read.

        Raises:
            DataError: If there is a single class, or implausibly many.
        """
        found, total = len(self.counts), self.counts.total()
        if found < 2:
            what = f"are all {next(iter(self.counts))!r:.60}" if found else "are all missing"
            raise DataError(f"the labels in {self.where} of the training data {what} (at least two classes are needed)")
        if not self.given:
            if (found > MANY_CLASSES and found * 10 > total) or (found > MANY_CLASSES // 10 and found * 2 > total):
                raise DataError(
                    f"{self.where} has {found:,} different labels among {total:,} in the training data, "
                    "which looks like text or numbers, not like classes (name another label_column, or list the "
                    f"classes in label_names; {NUMBERS_HINT})"
                )
            self.names = sort_names(self.counts)
            self.numbers = {name: number for number, name in enumerate(self.names)}
        self.settled = True

    def recall(self, names: Sequence[str]) -> None:
        """Use the names of a trained model, without training data."""
        self.names = list(names)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.settled = True

    def notes(self) -> list[str]:
        """Return warnings about the names in the training data, one line each."""
        return self.similar() + self.number_like() + self.list_like()

    def similar(self) -> list[str]:
        """Report names that look alike, in at most one line."""
        return similar_names(self.counts, self.where)

    def number_like(self) -> list[str]:
        """Report names that may be numbers to predict, in at most one line.

        These are fractions, and many whole numbers that do not count the classes from 0 or 1.
        """
        if self.given or not self.names:
            return []
        try:
            numbers = sorted(float(name) for name in self.names)
        except ValueError:
            return []
        counts_classes = any(numbers == [float(first + index) for index in range(len(numbers))] for first in (0, 1))
        are_whole = all(number.is_integer() for number in numbers)
        if counts_classes or (are_whole and len(numbers) <= MAX_NUMBER_CLASSES):
            return []
        kind = "whole numbers" if are_whole else "numbers"
        return [f"the {len(numbers)} different {kind} in {self.where} are read as classes ({NUMBERS_HINT})"]

    def list_like(self) -> list[str]:
        """Report names that look like lists in CSV files, or like parts of them, in at most one line."""
        lists = [] if self.given else [name for name in self.names if name.startswith("[") or name.endswith("]")]
        if not lists:
            return []
        return [
            f"{len(lists)} of the {len(self.names)} classes in {self.where} look like lists, and are read as names: "
            f"{list_first([repr(name) for name in lists])} (write lists to .jsonl or .parquet files, or text with a "
            "label_separator)"
        ]

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        """Return the names, and the number of ``labels`` (n,) of each class."""
        counts = np.bincount(labels[labels != IGNORED], minlength=len(self.names))
        return {"label_names": self.names, "class_counts": counts.tolist()}


def sort_names(names: Iterable[str]) -> list[str]:
    """Sort names of classes: integers by value, otherwise alphabetically."""
    names = list(names)
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


def similar_names(counts: Mapping[str, int], where: str) -> list[str]:
    """Report names of classes that differ only by white space, case or Unicode form. They remain different classes.

    Args:
        counts: Number of examples, by name.
        where: Source of the names, for the message.
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_plain(name), []).append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    shown = "; ".join(
        ", ".join(f"{name!r:.40} ({counts[name]:,})" for name in names) for names in alike[:MAX_REPORTED_GROUPS]
    )
    more = f"; and {len(alike) - MAX_REPORTED_GROUPS} more" if len(alike) > MAX_REPORTED_GROUPS else ""
    return [
        f"labels in {where} differ only by white space, case or Unicode form, and count as different classes: "
        f"{shown}{more}"
    ]


def _plain(name: str) -> str:
    """Normalise differences that are easily overlooked: 1.0 is 1, and "É " is "é"."""
    plain = " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
    try:
        return repr(float(plain))
    except ValueError:
        return plain
