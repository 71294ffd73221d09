"""Pictures and samples that a run logs without being asked: they must never end it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.sdk.errors import one_line

MAX_NAME = 40
"""Characters of a name that a picture shows; arbitrary."""


@contextmanager
def optional(what: str) -> Iterator[None]:
    """Turn any failure of the block, which draws or logs something that nobody asked for, into a warning.

    Args:
        what: What it draws or logs, for the warning.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # of matplotlib's fonts: drawn as a box
            yield
    except Exception as error:
        rank_zero_warn(f"{what} left out: {type(error).__name__}: {one_line(error)}")


def drawable(name: str) -> str:
    """A name that matplotlib can draw, with ``parse_math=False``: one line, and no half of a surrogate pair."""
    text = " ".join(name.encode("utf-8", "replace").decode("utf-8").split())
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 3]}..."
