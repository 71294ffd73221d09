"""Deprecated names, which work for one release with a warning."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def moved_module(old: str, new: str, warn: bool = True) -> Callable[[str], Any]:
    """Return a module-level ``__getattr__`` (PEP 562) for a module whose contents have moved.

    Args:
        old: ``__name__`` of the old module.
        new: name of the new module.
        warn: emit a ``DeprecationWarning`` for each import from the old module.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name.startswith("__"):  # looked up by the import system and by inspection tools
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(new), name)
        if warn:
            warnings.warn(f"{old} is deprecated: import {name} from {new}", DeprecationWarning, stacklevel=2)
        return value

    return __getattr__


def moved_function(old: str, function: Callable[P, R]) -> Callable[P, R]:
    """Return a function for a deprecated name, which emits a warning when it is called.

    Args:
        old: the deprecated name.
        function: the function, in its new module.
    """

    @functools.wraps(function)
    def moved(*args: P.args, **kwargs: P.kwargs) -> R:
        new = f"{function.__module__}.{function.__name__}"
        warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=2)
        return function(*args, **kwargs)

    return moved
