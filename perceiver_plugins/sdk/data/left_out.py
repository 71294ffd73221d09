"""Counting of rows that are left out of a data set, and the line that reports them."""

from __future__ import annotations

from collections import Counter


class LeftOut:
    """Count the rows that a reader leaves out, by reason."""

    def __init__(self) -> None:
        self.rows = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def count(self, reason: str, location: str, is_left_out: bool) -> None:
        """Count a row.

        Args:
            reason: Why it is left out, if it is: "no text".
            location: Location of the row, of which the first is reported.
            is_left_out: Whether it is left out.
        """
        self.rows += 1
        if is_left_out:
            self.reasons[reason] += 1
            self.first.setdefault(reason, location)

    def lines(self, split: str) -> list[str]:
        """One line for each reason."""
        return [
            f"{split}: {count:,} of {self.rows:,} rows left out: {reason} (first: {self.first[reason]})"
            for reason, count in self.reasons.items()
        ]
