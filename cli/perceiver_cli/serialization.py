"""Options of the trainer's classes as plain data, where jsonargparse has no form for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

NOT_SERIALIZED = "Unable to serialize instance"
"""Start of the text that jsonargparse dumps instead of a value that it cannot serialize."""


def with_plain_enums(value: Any) -> Any:
    """A copy of nested options in which members of enumerations of strings are plain strings."""
    if isinstance(value, Namespace):
        return Namespace(**{key: with_plain_enums(child) for key, child in vars(value).items()})
    if isinstance(value, list | tuple):
        return type(value)(with_plain_enums(child) for child in value)
    return str.__str__(value.value) if isinstance(value, str) and hasattr(value, "value") else value


def with_serialized(dumped: Any, given: Any) -> Any:
    """Dumped options without values that have no form: a string is its own, and an object is an option's default.

    Args:
        dumped: nested options as jsonargparse dumped them.
        given: the same before.
    """
    if isinstance(dumped, Mapping):
        pairs = {key: (value, given.get(key) if isinstance(given, Mapping) else None) for key, value in dumped.items()}
        return {key: with_serialized(*pair) for key, pair in pairs.items() if _has_form(*pair)}
    if isinstance(dumped, list) and isinstance(given, list | tuple):
        return [with_serialized(*pair) for pair in zip(dumped, given, strict=True)]
    return given if _is_marked(dumped) else dumped


def _has_form(dumped: Any, given: Any) -> bool:
    return not _is_marked(dumped) or isinstance(given, str)


def _is_marked(dumped: Any) -> bool:
    return isinstance(dumped, str) and dumped.startswith(NOT_SERIALIZED)
