"""Conversion of the trainer's class options to plain data, for types that jsonargparse cannot serialize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

NOT_SERIALIZED = "Unable to serialize instance"
"""Prefix of the text that jsonargparse dumps for a value that it cannot serialize."""


def with_plain_enums(value: Any) -> Any:
    """Copy nested options with members of string enumerations as plain strings."""
    if isinstance(value, Namespace):
        return Namespace(**{key: with_plain_enums(child) for key, child in vars(value).items()})
    if isinstance(value, list | tuple):
        return type(value)(with_plain_enums(child) for child in value)
    return str.__str__(value.value) if isinstance(value, str) and hasattr(value, "value") else value


def with_serialized(dumped: Any, given: Any) -> Any:
    """Return dumped options without unserializable objects, which are defaults, and with strings and mappings restored.

    Args:
        dumped: nested options, dumped by jsonargparse.
        given: the options before.
    """
    if isinstance(dumped, Mapping):
        pairs = {key: (value, given.get(key) if isinstance(given, Mapping) else None) for key, value in dumped.items()}
        return {key: with_serialized(*pair) for key, pair in pairs.items() if _is_serializable(*pair)}
    if isinstance(dumped, list) and isinstance(given, list | tuple):
        return [with_serialized(*pair) for pair in zip(dumped, given, strict=True)]
    is_text_of_mapping = isinstance(dumped, str) and isinstance(given, Mapping)  # as in a union with a string before it
    return given if _is_marked(dumped) or is_text_of_mapping else dumped


def _is_serializable(dumped: Any, given: Any) -> bool:
    return not _is_marked(dumped) or isinstance(given, str)


def _is_marked(dumped: Any) -> bool:
    return isinstance(dumped, str) and dumped.startswith(NOT_SERIALIZED)
