"""Deprecated names, which work for one release and warn."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


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


def moved_function(old: str, function: Callable[P, R]) -> Callable[P, R]:
    """Return a function under its old name, which warns with its new one when it is called.

    Args:
        old: the old name.
        function: the function, in the module that exports it now.
    """

    @functools.wraps(function)
    def moved(*args: P.args, **kwargs: P.kwargs) -> R:
        new = f"{function.__module__}.{function.__name__}"
        warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=2)
        return function(*args, **kwargs)

    return moved
