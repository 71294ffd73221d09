"""Content of checkpoints: plain data and tensors only, as torch's restricted unpickler requires."""

from __future__ import annotations

import datetime
import io
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import Enum
from itertools import chain
from pathlib import PurePath
from typing import Any

import torch

from perceiver_registry import UserError

PLAIN_TYPES = (bool, float, int, str, type(None))
"""Types whose values can always be read back."""


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
    try:
        found = _unreadable(checkpoint, "", set())
    except RecursionError:  # torch writes such content recursively as well
        found = "they have too many levels"
    if found is not None:
        raise UserError(
            f"checkpoints of this run could not be read back: {found}, but checkpoints contain plain data and tensors "
            "only (leave out the callback or option that adds it)"
        )


def _unreadable(value: Any, name: str, seen: set[int]) -> str | None:
    """Describe the first entry that cannot be read back; None if all can.

    Args:
        value: the entry.
        name: dotted name of the entry.
        seen: ids of the containers that were already checked, which may contain each other.
    """
    children: Iterable[tuple[Any, Any]]
    if id(value) in seen:
        return None
    if type(value) in (dict, OrderedDict):
        keys = (_unreadable(key, f"a key of {name or 'the checkpoint'}", seen) for key in value)
        problem = next(filter(None, keys), None)
        if problem is not None:
            return problem
        children = chain(value.items(), getattr(value, "__dict__", {}).items())
    elif type(value) in (list, tuple):
        children = enumerate(value)
    elif type(value) is torch.Tensor:
        children = vars(value).items()
    else:
        is_readable = type(value) in PLAIN_TYPES or _is_read_back(value)
        return None if is_readable else f"{name or 'the checkpoint'} is of type {type(value).__name__}"
    seen.add(id(value))
    others = ((key, child) for key, child in children if type(child) not in PLAIN_TYPES)
    problems = (_unreadable(child, f"{name}.{key}".lstrip("."), seen) for key, child in others)
    return next(filter(None, problems), None)


def _is_read_back(value: Any) -> bool:
    """Check that a value can be read back, by writing it."""
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # pickling calls methods of any class
        return False
    return True
