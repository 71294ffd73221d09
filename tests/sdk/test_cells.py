"""Conversion of table cells, and features of dates."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from perceiver_plugins.sdk.data.cells import boolean, category, date, is_missing
from perceiver_plugins.sdk.data.dates import DATE_FEATURES, TIME_FEATURES, date_features

NOON = datetime.datetime(2024, 2, 29, 12)


@pytest.mark.parametrize("value", [None, "", "  ", "NA", "NaN", math.nan, pd.NaT, pd.NA, np.datetime64("NaT")])
def test_missing_cells(value):
    assert is_missing(value)
    assert math.isnan(boolean(value))
    assert category(value) is None
    assert date(value) is None


@pytest.mark.parametrize(
    ("value", "expected"), [(True, 1), (" False", 0), ("TRUE", 1), (0, 0), ("1", 1), ("0.0", 0), (np.True_, 1)]
)
def test_booleans(value, expected):
    assert boolean(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (" New York ", "New York"),
        (True, "true"),
        (3.0, "3"),
        (3, "3"),
        (0.5, "0.5"),
        ("03", "03"),
        (np.int64(3), "3"),
        (np.bool_(False), "false"),
        (Decimal("1.50"), "1.50"),
    ],
)
def test_categories(value, expected):
    assert category(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-02-29T12:00:00", NOON),
        (" 2024-02-29 12:00", NOON),
        ("2024-02-29T12:00:00Z", NOON),
        ("2024-02-29T14:00:00+02:00", NOON),
        ("2024-02-29", NOON.replace(hour=0)),
        (datetime.date(2024, 2, 29), NOON.replace(hour=0)),
        (np.datetime64("2024-02-29T12", "ns"), NOON),
        (pd.Timestamp("2024-02-29 14:00", tz="Europe/Helsinki"), NOON),
    ],
)
def test_dates(value, expected):
    assert date(value) == expected


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (boolean, "yes"),
        (boolean, 2),
        (category, ["a"]),
        (category, np.array(["a", "b"])),
        (category, b"a"),
        (category, "\ud800"),
        (date, "29.02.2024"),
        (date, "2023-02-29"),
        (date, 20240229),
    ],
)
def test_other_cells_are_refused(read, value):
    with pytest.raises(ValueError, match=r"is not a|is an object, not|is a list, not|half of a surrogate pair"):
        read(value)


def test_date_features_are_days_and_phases():
    days, *cyclic = date_features(NOON, with_time=True)
    assert days == pytest.approx(pd.Timestamp(NOON).timestamp() / 86400)
    assert len(cyclic) + 1 == len(DATE_FEATURES) + len(TIME_FEATURES)
    # 59.5 of 366 days after New Year, 3.5 of 7 days after Monday 0:00, half a day after midnight.
    for index, share in enumerate([59.5 / 366, 3.5 / 7, 0.5]):
        sin, cos = cyclic[2 * index : 2 * index + 2]
        assert math.atan2(sin, cos) % (2 * math.pi) == pytest.approx(2 * math.pi * share)
    assert date_features(NOON) == [days, *cyclic[:4]]
    assert all(map(math.isnan, date_features(None, with_time=True)))
    assert len(date_features(None)) == len(DATE_FEATURES)


def test_years_have_their_own_length():
    for year, days in ((1900, 365), (2000, 366), (2023, 365), (2024, 366)):
        sin, cos = date_features(datetime.datetime(year, 12, 31))[1:3]
        assert math.atan2(sin, cos) == pytest.approx(-2 * math.pi / days)
