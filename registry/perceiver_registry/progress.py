"""Progress lines with rate and remaining time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

FIRST_AFTER = 5.0
"""Minimum seconds before the first line and between two lines. Arbitrary: shorter work needs no progress."""

INTERVAL = 30.0
"""Seconds between two lines, unless a tenth of the work is done earlier. Arbitrary."""

MAX_INTERVAL = 600.0
"""Maximum seconds between two lines, which work of several days reaches. Arbitrary."""


class ProgressLines:
    """Decide when to report progress, and measure rate and remaining time.

    Args:
        unit: counted unit, in the plural ("steps").
        clock: function that returns the time in seconds.
    """

    def __init__(self, unit: str, clock: Callable[[], float] = time.monotonic):
        self.unit = unit
        self.clock = clock
        self.restart(0)

    def restart(self, done: int) -> None:
        """Restart the measurement.

        Args:
            done: units done so far, not 0 for resumed work.
        """
        self.began = self.reported = self.clock()
        self.done_before = self.done_reported = done

    def line(self, done: int, total: int | None, limit: float | None = None) -> str | None:
        """Return a line with progress, rate and remaining time if one is due, otherwise None.

        Args:
            done: units done.
            total: units in total. None: unknown.
            limit: remaining seconds of a time limit. None: no limit.
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
        """Return whether a line is due: after the first progress, after a tenth of the work, or after an interval."""
        waited = now - self.reported
        new = done - self.done_reported
        first = new > 0 and self.done_reported == self.done_before
        much = new > 0 and total is not None and new >= total / 10
        interval = min(MAX_INTERVAL, max(INTERVAL, (now - self.began) / 100))
        return waited >= FIRST_AFTER and (first or much or waited >= interval)


def duration(seconds: float) -> str:
    """Format a duration: "45 s", "12 min", "3 h 20 min", "2 d 5 h"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"
