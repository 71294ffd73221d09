"""Conversion of table cells to texts, numbers, booleans, categories and dates."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

from perceiver_plugins.sdk.errors import DataError

MISSING = ("", "na", "n/a", "nan", "null")
"""Spellings of a missing number, boolean, category or date in text formats, in lower case."""

BOOLEANS = {"false": 0.0, "true": 1.0}
"""Spellings of booleans in text formats, in lower case."""

MAX_NUMBER = float(np.finfo(np.float32).max)
"""Largest magnitude of a number: that of float32."""


KINDS = {
    type(None): "empty",
    bool: "a boolean",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    datetime.date: "a date",
    datetime.datetime: "a date",
}
"""Names of types in messages."""


def kind_of(value: Any) -> str:
    """Name the type of a value for a message."""
    return KINDS.get(type(value), "an object")


def text_of(row: Mapping[str, Any], column: str, location: str) -> str:
    """Return the text in a column of a row; "" if it is missing (null).

    Raises:
        DataError: If it is not text.
    """
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DataError(f"{location}: {column!r} must be text, got {kind_of(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{location}: {column!r} contains half of a surrogate pair, not a character") from error
    return text


def is_missing(value: Any) -> bool:
    """Check whether a cell is null, NaN, NaT, NA of pandas, or a spelling of a missing value."""
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):  # NA cannot be compared, nor can arrays be missing
        return type(value).__name__ == "NAType"


def _plain(value: Any) -> Any:
    """Convert a scalar of NumPy to a Python object."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]")
    return value.item() if isinstance(value, np.generic) else value


def number(value: Any) -> float:
    """Convert a cell to a number; NaN if it is missing.

    Raises:
        ValueError: If it is not a number, not finite, or too large.
    """
    if is_missing(value):
        return math.nan
    try:
        # float() accepts "1_000", which data files do not use.
        parsed = math.inf if isinstance(value, str) and "_" in value else float(value)
    except (TypeError, ValueError, OverflowError):
        parsed = math.inf
    if math.isinf(parsed):
        raise ValueError(f"{value!r:.40} is not a finite number")
    if abs(parsed) > MAX_NUMBER:
        raise ValueError(f"{value!r:.40} is larger than {MAX_NUMBER:.2g}")
    return parsed


def is_number(value: Any) -> bool:
    """Check whether a cell that is not missing is meant as a number, also if it is too large or not finite."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return "_" not in value
    return isinstance(value, int | float | Decimal)


def is_boolean(value: Any) -> bool:
    """Check whether a cell is a boolean, or its spelling."""
    return isinstance(value, bool | np.bool_) or (isinstance(value, str) and value.strip().lower() in BOOLEANS)


def boolean(value: Any) -> float:
    """Convert a cell to 0 (false) or 1 (true); NaN if it is missing. The numbers 0 and 1 are booleans as well.

    Raises:
        ValueError: If it is neither a boolean nor its spelling.
    """
    if is_missing(value):
        return math.nan
    if is_boolean(value):
        return BOOLEANS[str(value).strip().lower()]
    try:
        parsed = number(value)
    except ValueError:
        parsed = math.nan
    if parsed not in (0.0, 1.0):
        raise ValueError(f"{value!r:.40} is not a boolean")
    return parsed


def category(value: Any) -> str | None:
    """Convert a cell to the name of a category; None if it is missing.

    White space around texts is removed. Integers stored as floats, as in columns with missing values, are integers.

    Raises:
        ValueError: If it is a list, an object or binary, or contains half of a surrogate pair.
    """
    if is_missing(value):
        return None
    value = _plain(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int | float | Decimal | datetime.date | datetime.time | datetime.timedelta):
        raise ValueError(f"{value!r:.40} is {kind_of(value)}, not a category")
    name = str(value).strip()
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{value!r:.40} contains half of a surrogate pair, not a character") from error
    return name


def date(value: Any) -> datetime.datetime | None:
    """Convert a cell to a date with its time of day; None if it is missing.

    Texts are in ISO 8601: ``2024-03-31``, ``2024-03-31 18:30`` or ``2024-03-31T18:30:00Z``. A date without a time is
    its midnight. A time with an offset is converted to UTC; one without an offset is not changed.

    Raises:
        ValueError: If it is not a date.
    """
    if is_missing(value):
        return None
    try:
        parsed = datetime.datetime.fromisoformat(value.strip()) if isinstance(value, str) else _plain(value)
        if isinstance(parsed, datetime.datetime):
            return parsed.astimezone(datetime.UTC).replace(tzinfo=None) if parsed.tzinfo else parsed
        if isinstance(parsed, datetime.date):
            return datetime.datetime(parsed.year, parsed.month, parsed.day)
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{value!r:.40} is not a date such as 2024-03-31 or 2024-03-31T18:30")
