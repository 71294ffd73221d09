"""Numeric features of dates."""

from __future__ import annotations

import calendar
import datetime
import math
from collections.abc import Iterator

EPOCH = datetime.datetime(1970, 1, 1)
"""Date from which days are counted."""

DAY = datetime.timedelta(days=1)

DATE_FEATURES = ("days", "sin of year", "cos of year", "sin of week", "cos of week")
"""Features of a date: days since 1970-01-01, and its phases in year and week."""

TIME_FEATURES = ("sin of day", "cos of day")
"""Additional features of a date with a time of day."""


def date_features(date: datetime.datetime | None, with_time: bool = False) -> list[float]:
    """Return the features of a date: days since 1970-01-01, and cyclic features; all NaN if the date is missing.

    Cyclic features are the sine and cosine of the date's phase in its year or week, in which the end of a cycle is
    close to its beginning.

    Args:
        date: the date.
        with_time: add the phase of the day (:data:`TIME_FEATURES`).
    """
    if date is None:
        return [math.nan] * (len(DATE_FEATURES) + (len(TIME_FEATURES) if with_time else 0))
    days = (date - EPOCH) / DAY
    return [days, *(part for phase in _phases(date, with_time) for part in (math.sin(phase), math.cos(phase)))]


def _phases(date: datetime.datetime, with_time: bool) -> Iterator[float]:
    """Yield the angles of a date in its year, week and day."""
    start = datetime.datetime(date.year, 1, 1)
    midnight = datetime.datetime(date.year, date.month, date.day)
    of_day = (date - midnight) / DAY
    days_of_year = 366 if calendar.isleap(date.year) else 365
    yield 2 * math.pi * ((date - start) / DAY) / days_of_year
    yield 2 * math.pi * (date.weekday() + of_day) / 7
    if with_time:
        yield 2 * math.pi * of_day
