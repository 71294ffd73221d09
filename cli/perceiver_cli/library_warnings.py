"""Formatting and suppression of libraries' warnings."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

from perceiver_registry.description import ModelWarning


def as_note(message: Warning | str, *_: Any, **__: Any) -> str:
    """Format a warning as one line without source code."""
    return f"perceiver: {' '.join(str(message).split())}\n"


@contextlib.contextmanager
def without_library_warnings() -> Iterator[None]:
    """Suppress warnings within this context, except those about models that are read."""
    formatwarning = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ModelWarning)
        warnings.formatwarning = as_note
        try:
            yield
        finally:
            warnings.formatwarning = formatwarning
