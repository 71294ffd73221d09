"""Cases of the benchmarks: each module has a list ``CASES``. Imports are light."""

from __future__ import annotations

import fnmatch
import importlib
from collections.abc import Sequence

from benchmarks.case import Case

MODULES = (
    "language_model",
    "image",
    "flow",
    "attention",
    "growth",
    "causal",
    "loaders",
    "startup",
    "quantization",
    "compilation",
    "gpu",
)


def all_cases() -> dict[str, Case]:
    """All cases by name, in the order of the report."""
    modules = (importlib.import_module(f"{__name__}.{module}") for module in MODULES)
    return {case.name: case for module in modules for case in module.CASES}


def chosen_cases(patterns: Sequence[str], device: str) -> list[Case]:
    """The cases that a person asks for.

    Args:
        patterns: names, beginnings of names, or patterns of names (``"*-train"``). Empty: all that are meant for the
            device.
        device: "cpu" or "cuda".

    Raises:
        LookupError: if a pattern is that of no case.
    """
    cases = all_cases()
    if not patterns:
        return [case for case in cases.values() if case.device in (None, device)]
    chosen = set()
    for pattern in patterns:
        names = [name for name in cases if fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}-")]
        if not names:
            raise LookupError(f"{pattern!r} is no case; there are: {', '.join(cases)}")
        chosen.update(names)
    return [case for name, case in cases.items() if name in chosen]
