"""Content of checkpoints: plain data and tensors only, as torch's restricted unpickler requires."""

from __future__ import annotations

import datetime
import io
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any

import torch

from perceiver_registry import UserError

PLAIN_TYPES = (bool, float, int, str, type(None))
"""Types whose values can always be read back, such as the numbers in the states of random generators."""


def as_plain(value: Any) -> Any:
    """Convert a configuration value to plain data, which YAML and checkpoints can represent."""
    if isinstance(value, Mapping):
        return {str(key): as_plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(as_plain, value))
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, PurePath | datetime.timedelta):
        return str(value)
    return value


def check_record(checkpoint: Mapping[str, Any]) -> None:
    """Check that a checkpoint can be read back after it is written.

    Raises:
        UserError: if it cannot; the message names the entry.
    """
    found = _unreadable(checkpoint, "")
    if found is not None:
        raise UserError(
            f"checkpoints of this run could not be read back: {found}, but checkpoints contain plain data and tensors "
            "only (leave out the callback or option that adds it)"
        )


def _unreadable(value: Any, name: str) -> str | None:
    """Describe the first entry that cannot be read back; None if all can."""
    if _is_read_back(value):
        return None
    children: list[tuple[Any, Any]] = []
    if type(value) in (dict, OrderedDict):
        children = list(value.items())
    elif type(value) in (list, tuple):
        children = list(enumerate(value))
    for key, child in children:
        found = _unreadable(child, f"{name}.{key}".lstrip("."))
        if found is not None:
            return found
    return f"{name or 'the checkpoint'} is of type {type(value).__name__}"


def _is_read_back(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(_without_elements(value), file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # pickling calls methods of any class
        return False
    return True


def _without_elements(value: Any) -> Any:
    """Copy nested values with empty tensors and without plain elements of lists, to make the check fast."""
    if type(value) is torch.Tensor:
        return torch.empty(0)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _without_elements(child)) for key, child in value.items())
    if type(value) in (list, tuple):
        return type(value)(_without_elements(child) for child in value if type(child) not in PLAIN_TYPES)
    return value
