"""Lines of progress: when they are due, and what they say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

FIRST_AFTER = 5.0
"""Seconds until the first line, and between two lines at least. Arbitrary: shorter work needs none."""

INTERVAL = 30.0
"""Seconds between two lines, unless a tenth of the work is done before. Arbitrary."""

MAX_INTERVAL = 600.0
"""Seconds between two lines of work that takes days. Arbitrary."""


class ProgressLines:
    """Decide when to report progress, and measure rate and remaining time.

    Args:
        unit: what is counted, in the plural.
        clock: returns the time in seconds.
    """

    def __init__(self, unit: str, clock: Callable[[], float] = time.monotonic):
        self.unit = unit
        self.clock = clock
        self.restart(0)

    def restart(self, done: int) -> None:
        """Begin to measure, at a count that need not be 0 where work is resumed."""
        self.began = self.reported = self.clock()
        self.done_before = self.done_reported = done

    def line(self, done: int, total: int | None, limit: float | None = None) -> str | None:
        """Return what is done, the rate and the remaining time if a report is due, otherwise None.

        Args:
            done: how much is done.
            total: how much there is to do; None: unknown.
            limit: seconds after which the work ends in any case; None: no limit.
        """
        now = self.clock()
        if not self._is_due(now, done, total):
            return None
        elapsed = now - self.began
        rate = (done - self.done_reported) / (now - self.reported)
        average = (done - self.done_before) / elapsed
        self.reported, self.done_reported = now, done
        parts = [f"{done}/{total} ({100 * done // total} %)" if total else f"{done}", f"{rate:.3g} {self.unit}/s"]
        left = (total - done) / average if total and average > 0 else math.inf
        left = min(left, math.inf if limit is None else limit)
        if math.isfinite(left):
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    def _is_due(self, now: float, done: int, total: int | None) -> bool:
        """Whether to report: the first progress, a tenth of all work, or at the end of an interval."""
        waited = now - self.reported
        new = done - self.done_reported
        first = new > 0 and self.done_reported == self.done_before
        much = new > 0 and total is not None and new >= total / 10
        interval = min(MAX_INTERVAL, max(INTERVAL, (now - self.began) / 100))
        return waited >= FIRST_AFTER and (first or much or waited >= interval)


def duration(seconds: float) -> str:
    """A duration as a person says it: "45 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
