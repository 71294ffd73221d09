"""Decoding of arrays: NumPy files, lines of numbers, and nested lists."""

from __future__ import annotations

import io
import math
import re
import warnings
from typing import Any

import numpy as np
from torch import Tensor

from perceiver_plugins.sdk.data.cells import MAX_NUMBER, number
from perceiver_plugins.sdk.errors import DataError

SUFFIXES = (".npy", ".xyz", ".pts", ".txt", ".csv")
"""Suffixes of files of one array."""


def decode_array(content: bytes, name: str) -> np.ndarray:
    """Decode a file with one array: NumPy's format, or one vector per line.

    Numbers in a line are separated by white space, commas or semicolons. Lines that are empty or begin with # are
    ignored.

    Args:
        content: content of the file.
        name: path of the file, which selects the format, for messages as well.

    Returns:
        (m, numbers), float32.

    Raises:
        DataError: if it is damaged or empty, or contains something other than finite numbers.
    """
    array = _decode_npy(content, name) if name.lower().endswith(".npy") else _decode_lines(content, name)
    return as_vectors(array, name)


def as_vectors(value: Any, location: str) -> np.ndarray:
    """Convert an array, tensor or nested lists to vectors (m, numbers), float32. A single vector becomes (1, numbers).

    Raises:
        DataError: if it is empty, has another number of dimensions, vectors of different lengths, or something other
            than finite numbers.
    """
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.double() if value.is_floating_point() else value  # NumPy has no bfloat16
    try:
        array = np.asarray(value)
    except ValueError:  # lists of different lengths
        raise DataError(f"{location}: vectors of different lengths") from None
    if array.dtype.kind not in "fiub":
        raise DataError(f"{location}: contains something other than numbers")
    if not array.size:
        raise DataError(f"{location}: contains no numbers")
    if array.ndim == 1:
        array = array[None]
    if array.ndim != 2:
        raise DataError(f"{location}: shape {array.shape}, must be vectors x numbers")
    with np.errstate(over="ignore", invalid="ignore"):
        invalid = ~(np.abs(array.astype(np.float64)) <= MAX_NUMBER)
    if invalid.any():
        row, column = np.argwhere(invalid)[0] + 1
        raise DataError(f"{location}: number {column} of vector {row} is {array[row - 1, column - 1]}, not finite")
    return array.astype(np.float32)


def _decode_npy(content: bytes, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # headers of old versions, or damaged ones
            array: np.ndarray = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # damaged headers raise any type
        reason = "objects are not read" if str(error).startswith("Object arrays") else "damaged"
        raise DataError(f"{name}: not an array of numbers in NumPy's format ({reason})") from error
    return array


def _decode_lines(content: bytes, name: str) -> list[list[float]]:
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{name}: not UTF-8 text (byte {error.start})") from error
    vectors: list[list[float]] = []
    for line_number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        location = f"{name}, line {line_number}"
        values = [_finite(value, location) for value in re.split(r"[;,\s]+", line.rstrip(",;"))]
        if vectors and len(values) != len(vectors[0]):
            raise DataError(f"{location}: {len(values)} numbers, the lines before have {len(vectors[0])}")
        vectors.append(values)
    return vectors


def _finite(text: str, location: str) -> float:
    try:
        value = number(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise DataError(f"{location}: {text!r:.40} is not a finite number (comment lines begin with #)")
    return value
