"""The names of the classes in a column of labels: read, checked and numbered, the same for every reader."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perceiver_plugins.sdk.data.cells import kind_of
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError, near

MANY = 1000
"""More classes than this, with few examples each, are taken for something else."""

REPORTED = 3
"""Groups of similar names that are reported; arbitrary."""


class ClassNames:
    """The names of the classes in a column: given, or those that occur in the training data.

    All training data is read first, then :meth:`settle` is called, then the rest is read. Without training data,
    :meth:`recall` is called first.

    Whole numbers, also those written as text, index the given names, from 0 on; otherwise they are names, as are
    booleans (false, true). Names that are not given are sorted, whole numbers by their value. A column holds one kind
    of label: text, numbers or booleans.

    Args:
        column: The column with the classes.
        names: The names, in their order; None: those that occur.
    """

    def __init__(self, column: str, names: Sequence[str] | None = None) -> None:
        if names is not None and len(set(names)) < max(2, len(names)):
            raise UserError(f"label_names={list(names)}: give at least two names, each once")
        self.where = f"the column {column!r} (label_column)"
        self.given = names is not None
        self.names = list(names or [])
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.counts: Counter[str] = Counter()
        self.settled = False
        self._kind = ""
        self._kind_location = ""

    def read(self, value: Any, location: str) -> str:
        """The name of a class.

        Raises:
            DataError: If there is none, if it is of another kind than those before it, or if it is not among those
                that are given or were learnt.
        """
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # the form of whole numbers in a column where some are missing
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
            hint = "; to predict numbers, pass target=number" if isinstance(value, float) else ""
            raise DataError(
                f"{location}: {self.where} must hold texts, whole numbers or booleans to name classes, "
                f"not {kind_of(value)} ({value!r:.40}){hint}"
            )
        kind = kind_of(value)
        if not self._kind:
            self._kind, self._kind_location = kind, location
        elif kind != self._kind:
            raise DataError(
                f"{location}: the label {value!r:.40} in {self.where} is {kind}, but {self._kind} in "
                f"{self._kind_location} (write all labels in one way)"
            )

    def _given_name(self, value: str | int, name: str, location: str) -> str:
        try:
            number = int(value)
        except ValueError:
            hint = near(name, self.names)
            raise DataError(f"{location}: the label {name!r:.60} is none of the label_names ({hint:.200})") from None
        if 0 <= number < len(self.names):
            return self.names[number]
        hint = " (-1 stands for a missing label in some data sets)" if number == -1 else ""
        raise DataError(
            f"{location}: the label {number} is out of range: "
            f"there are names for the labels 0 to {len(self.names) - 1}{hint}"
        )

    def _new_name(self, name: str, location: str) -> str:
        if self.settled:
            hint = near(name, self.names)
            raise DataError(
                f"{location}: the label {name!r:.60} in {self.where} does not occur in the training data ({hint:.200})"
            )
        return name

    def settle(self) -> None:
        """Number the names, as all training data has been read; report names that look alike.

        Raises:
            DataError: If there is one class only, or so many that they can be none.
        """
        found, total = len(self.counts), self.counts.total()
        if found < 2:
            what = f"are all {next(iter(self.counts))!r:.60}" if found else "are all missing"
            raise DataError(
                f"the labels in {self.where} of the training data {what}: there must be at least two classes"
            )
        if not self.given:
            if (found > MANY and found * 10 > total) or (found > MANY // 10 and found * 2 > total):
                raise DataError(
                    f"{self.where} has {found:,} different labels among {total:,} in the training data, "
                    "which looks like text or numbers, not like classes: name another label_column, pass "
                    "target=number to predict numbers, or list the classes in label_names"
                )
            self.names = in_order(self.counts)
            self.numbers = {name: number for number, name in enumerate(self.names)}
        self.settled = True

    def recall(self, names: Sequence[str]) -> None:
        """Take the names that a model was trained with, where there is no training data to read."""
        self.names = list(names)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.settled = True

    def similar(self) -> list[str]:
        """A line for names that look alike, for a report; empty without any."""
        return similar_names(self.counts, self.where)

    def facts(self, labels: np.ndarray) -> dict[str, Any]:
        """The names, and how often each occurs among ``labels`` (n,)."""
        counts = np.bincount(labels[labels != IGNORED], minlength=len(self.names))
        return {"label_names": self.names, "class_counts": counts.tolist()}


def in_order(names: Iterable[str]) -> list[str]:
    """Names of classes in their order: whole numbers by their value, or else by the alphabet."""
    names = list(names)
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


def similar_names(counts: Mapping[str, int], where: str) -> list[str]:
    """A line for names of classes that differ by white space, case or the form of their characters alone.

    They stay different classes: in some data they are.

    Args:
        counts: Examples of each name.
        where: The source of the names, for the message.
    """
    groups: dict[str, list[str]] = {}
    for name in counts:
        groups.setdefault(_plain(name), []).append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    if not alike:
        return []
    shown = "; ".join(", ".join(f"{name!r:.40} ({counts[name]:,})" for name in names) for names in alike[:REPORTED])
    more = f"; and {len(alike) - REPORTED} more" if len(alike) > REPORTED else ""
    return [
        f"labels in {where} differ by white space, case or form alone, and count as different classes: {shown}{more}"
    ]


def _plain(name: str) -> str:
    """A name without the differences that are easily overlooked: 1.0 is 1, and "É " is "é"."""
    plain = " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())
    try:
        return repr(float(plain))
    except ValueError:
        return plain
