"""Conversion of table cells to texts and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_plugins.sdk.errors import DataError

MISSING = ("", "na", "n/a", "nan", "null")
"""Spellings of a missing number in text formats, in lower case."""

MAX_NUMBER = float(np.finfo(np.float32).max)
"""Largest magnitude of a number: that of float32."""


KINDS = {type(None): "empty", bool: "a boolean", int: "a whole number", float: "a number", str: "text", list: "a list"}
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


def number(value: Any) -> float:
    """Convert a cell to a number; NaN if it is missing.

    Raises:
        ValueError: If it is not a number, not finite, or too large.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
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
