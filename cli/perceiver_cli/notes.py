"""Notes on standard error, printed by the first process of a run."""

from __future__ import annotations

import sys

from pytorch_lightning.utilities import rank_zero_only


@rank_zero_only
def note(message: str) -> None:
    """Print a note, on the first process only."""
    print(message, file=sys.stderr)
