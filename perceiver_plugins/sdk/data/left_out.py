"""Counter of rows that are left out of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.sdk.errors import DataError


class LeftOut:
    """Counter of the rows that a reader leaves out, by reason."""

    def __init__(self) -> None:
        self.rows = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def count(self, reason: str, location: str, is_left_out: bool) -> None:
        """Count a row.

        Args:
            reason: Reason to leave the row out, such as "no text".
            location: Location of the row. The first row of each reason is reported.
            is_left_out: Whether the row is left out.
        """
        self.rows += 1
        if is_left_out:
            self.reasons[reason] += 1
            self.first.setdefault(reason, location)

    def lines(self, split: str) -> list[str]:
        """Return a line for each reason."""
        return [
            f"{split}: {count:,} of {self.rows:,} rows left out: {reason} (first: {self.first[reason]})"
            for reason, count in self.reasons.items()
        ]


@contextmanager
def reported_before_errors(notes: Sequence[str]) -> Iterator[None]:
    """Report notes on rows that are left out before an error about the data, which they may explain.

    Args:
        notes: the notes.
    """
    try:
        yield
    except DataError:
        for note in notes:
            rank_zero_warn(note)
        raise
