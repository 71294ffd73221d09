"""Layout of positions on a sequence or a grid."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class PositionLayout:
    """Positions of an array on a sequence or a grid, from which ``init="local"`` starts.

    Args:
        positions: position encodings (*grid, channels), where the grid is (m,) for a sequence and (height, width) for
            an image in row-major order. They are appended to the other channels of the array, or added to its last
            channels, and do not depend on the batch.
        table: learned positions (m, channels) that ``positions`` are computed from, a parameter. Default: the positions
            are not learned.
    """

    positions: Tensor
    table: Tensor | None = None
