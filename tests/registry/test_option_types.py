"""Descriptions of option types and conversion of values."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from torch import Tensor

from perceiver_registry.option_types import ConversionError, choices, convert, describe_type, has_options, has_type


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Logger:
    """Class for type hints."""


class TextLogger(Logger):
    """Subclass for suggestions."""


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (int | float | None, "a number or null"),
        (float | Tensor, "a number"),
        (bool, "true or false"),
        (bool | Literal["warn"] | None, "true, false, 'warn' or null"),
        (str | list[str] | None, "a text, a list of texts or null"),
        (str | Path | None, "a text or null"),
        (Literal["normal", "local"], "'normal' or 'local'"),
        (Literal[32, 16] | Literal["32", "bf16"] | None, "16, '32', 'bf16' or null"),
        (Colour, "'RED' or 'BLUE'"),
        (tuple[int, int], "a list of 2 whole numbers"),
        (tuple[float | Tensor, float | Tensor], "a list of 2 numbers"),
        (list[float] | Literal["balanced"], "a list of numbers or 'balanced'"),
        (dict[str, Any], "a mapping"),
        (str | datetime.timedelta | dict[str, int], "a text, a duration or a mapping"),
        (Logger | Iterable[Logger] | bool | None, "a Logger, a list of Loggers, true, false or null"),
        (Callable[[int], int], ""),
        (Any, ""),
    ],
)
def test_type_descriptions(hint, words):
    assert describe_type(hint) == words


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "five", "must be a whole number, got 'five'"),
        (int, "1.5", "must be a whole number, got '1.5'"),
        (int, True, "must be a whole number, got true"),
        (float, "null", "must be a number, got 'null'"),
        (float, "x" * 99, f"must be a number, got '{'x' * 57}...'"),
        (list[str], [1], "must be a list of texts, got [1]"),
        (tuple[int, int], [1, 2, 3], "must be a list of 2 whole numbers, got [1, 2, 3]"),
        (Literal["normal", "local"], "lokal", "must be 'normal' or 'local', got 'lokal' (did you mean 'local'?)"),
        (Literal["normal", "local"], "zeros", "must be 'normal' or 'local', got 'zeros'"),
        (bool, "flase", "must be true or false, got 'flase' (did you mean 'false'?)"),
        (Logger | None, "TextLoger", "must be a Logger or null, got 'TextLoger' (did you mean 'TextLogger'?)"),
    ],
)
def test_wrong_type_error_describes_the_expected_type(hint, value, message):
    with pytest.raises(ConversionError) as caught:
        convert(hint, value)
    assert str(caught.value) == message
    assert caught.value.cause


@pytest.mark.parametrize(
    ("hint", "value", "converted"),
    [
        (int, "5", 5),
        (float, 1, 1.0),
        (float, "1e-3", 0.001),
        (bool | None, "null", None),
        (int, None, None),
        (str, "no", "no"),
        (tuple[int, int], "[3, 4]", (3, 4)),
        (list[str] | None, ["a"], ["a"]),
        (dict[str, float], {"a": 1}, {"a": 1.0}),
    ],
)
def test_strings_and_plain_data_are_converted(hint, value, converted):
    found = convert(hint, value)
    assert found == converted
    assert type(found) is type(converted)


def test_argument_is_not_modified():
    value = [{"a": 1}]
    convert(list[dict[str, float]], value)
    assert type(value[0]["a"]) is int


def test_choices_are_the_enumerated_values():
    assert choices(Literal["a", "b"] | bool | None) == ["a", "b", "true", "false", "null"]
    assert choices(Colour) == ["RED", "BLUE"]
    assert choices(int) == choices(Logger) == choices(list[bool]) == []


def test_objects_and_mappings_have_options():
    assert has_options(Logger | None)
    assert has_options(dict[str, int])
    assert not has_options(int | Literal["a"] | None)


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (bool, [True], [1, "true", None]),
        (int, [3, np.int64(3)], [3.0, "3", None, [3]]),
        (float, [0.5, 1, np.float32(0.5)], ["0.5", None, [0.5]]),
        (str | None, ["a", None], [1, ["a"]]),
        (list[str] | None, [["a"], [], ("a", "b"), None], ["ab", [1], [None], {"a": 1}]),
        (tuple[int, ...], [[1, 2], (1,)], [1, ["1"]]),
        (list[float] | Literal["balanced"], [[1, 0.5], "balanced"], []),
        (Mapping[str, Any], [{}, 1], []),
    ],
)
def test_types_of_plain_values_are_checked(hint: Any, right: list[Any], wrong: list[Any]) -> None:
    assert all(has_type(hint, value) for value in right)
    assert not any(has_type(hint, value) for value in wrong)
