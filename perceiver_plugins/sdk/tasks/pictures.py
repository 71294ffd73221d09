"""Optional pictures and samples in a run's log, which must not end the run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.sdk.errors import one_line

MAX_NAME = 40
"""Maximum number of characters of a name in a picture (arbitrary)."""


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Turn any error of the block into a warning.

    Args:
        what: name of what the block draws or logs, for the warning.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # matplotlib draws a box
            yield
    except Exception as error:
        rank_zero_warn(f"{what} left out: {type(error).__name__}: {one_line(error)}")


def drawable(name: str) -> str:
    """Return a name as one line without lone surrogates, which matplotlib can draw with ``parse_math=False``."""
    text = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 3]}..."
