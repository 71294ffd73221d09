"""Deprecated names, which work for one release and warn."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any


def moved_module(old: str, new: str, warn: bool = True) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a module whose contents have moved (PEP 562).

    Each name that is imported from the old module is that of the new one.

    Args:
        old: the old module's ``__name__``.
        new: the new module's name.
        warn: whether the old path is deprecated: each import from it is a ``DeprecationWarning``.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name.startswith("__"):  # asked for by the import system and by tools that inspect modules
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(new), name)
        if warn:
            warnings.warn(f"{old} is deprecated: import {name} from {new}", DeprecationWarning, stacklevel=2)
        return value

    return __getattr__
