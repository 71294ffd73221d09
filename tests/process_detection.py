"""Detection of tests that start another program, for the marker ``cli``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

PROCESS_STARTERS = {"subprocess", "pty", "FORKS", "FreshEnvironment", "run_code"}
"""Names in the code of functions that start another program."""


def starts_process(function: Any, cache: dict[Callable[..., Any], bool]) -> bool:
    """Return True if a function, or one of its module that it calls, starts another program."""
    if not isinstance(function, FunctionType):
        return False
    if function not in cache:
        cache[function] = False  # ends the recursion of functions that call each other
        names = {*names_in(function.__code__)}
        helpers = (function.__globals__.get(name) for name in names)
        cache[function] = not names.isdisjoint(PROCESS_STARTERS) or any(
            starts_process(helper, cache)
            for helper in helpers
            if getattr(helper, "__module__", None) == function.__module__
        )
    return cache[function]


def names_in(code: CodeType) -> Iterator[str]:
    """Yield the global names and attributes that a function reads, those of nested functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)
