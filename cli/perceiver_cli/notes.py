"""Notes on standard error, from one of the processes of a run."""

from __future__ import annotations

import sys

from pytorch_lightning.utilities import rank_zero_only


@rank_zero_only
def note(message: str) -> None:
    """Print a note, once however many processes a run has."""
    print(message, file=sys.stderr)
