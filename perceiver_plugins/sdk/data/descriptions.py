"""Validation of plain data in checkpoints that describes the training data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from perceiver_registry import UserError

T = TypeVar("T")


def restore_dataclass(cls: type[T], described: Any, name: str) -> T:
    """Create a dataclass from the values of its fields in a checkpoint.

    Args:
        cls: the dataclass. Its constructor raises a ValueError for invalid values.
        described: values by field; fields with a default are optional.
        name: key of ``described`` in the checkpoint, for messages.

    Raises:
        UserError: if fields are missing or unknown, or if a value is invalid.
    """
    known = fields(cls)  # type: ignore[arg-type]
    required = [each.name for each in known if each.default is MISSING and each.default_factory is MISSING]
    if not isinstance(described, Mapping) or not {*required} <= {*described} <= {each.name for each in known}:
        needed = f"{', '.join(required[:-1])} and {required[-1]}"
        raise UserError(f"checkpoint: {name}: must have {needed}, and no unknown entries")
    try:
        return cls(**described)
    except ValueError as error:
        raise UserError(f"checkpoint: {error}") from error


def is_number_list(value: Any) -> bool:
    """Check whether a value is a list of finite numbers; booleans are not numbers."""
    if not isinstance(value, list) or not all(type(each) in (int, float) for each in value):
        return False
    return all(abs(each) <= sys.float_info.max for each in value)
