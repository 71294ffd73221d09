"""Values of table cells: texts and numbers, the same for every reader."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_plugins.sdk.errors import DataError

MISSING = ("", "na", "n/a", "nan", "null")
"""Spellings of a missing number in formats that hold text alone, in any case."""

MAX_NUMBER = float(np.finfo(np.float32).max)
"""Largest magnitude of a number: models compute in 32 bits."""


KINDS = {type(None): "empty", bool: "a boolean", int: "a whole number", float: "a number", str: "text", list: "a list"}
"""Types of values as messages name them."""


def kind_of(value: Any) -> str:
    """Name the type of a value for a message, without Python's name of it."""
    return KINDS.get(type(value), "an object")


def text_of(row: Mapping[str, Any], column: str, location: str) -> str:
    """The text in a column of a row; "" where it is missing (null).

    Raises:
        DataError: If it is not text.
    """
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise DataError(f"{location}: {column!r} is not text but {kind_of(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{location}: {column!r} holds half of a surrogate pair, which is no character") from error
    return text


def number(value: Any) -> float:
    """The number in a cell; NaN where it is missing.

    Raises:
        ValueError: If it is something else, or not finite, or too large.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in MISSING):
        return math.nan
    try:
        # float() takes "1_000", which is no spelling of data files.
        parsed = math.inf if isinstance(value, str) and "_" in value else float(value)
    except (TypeError, ValueError, OverflowError):
        parsed = math.inf
    if math.isinf(parsed):
        raise ValueError(f"{value!r:.40} is no finite number")
    if abs(parsed) > MAX_NUMBER:
        raise ValueError(f"{value!r:.40} is larger than {MAX_NUMBER:.2g}")
    return parsed
