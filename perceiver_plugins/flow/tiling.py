"""Tiled prediction of optical flow: large frames in overlapping tiles of the training size, which are blended.

The method is that of the Perceiver IO authors (google-deepmind/deepmind-research,
perceiver/colabs/optical_flow.ipynb), without their repeated tiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

OVERLAP = 20
"""Smallest overlap of neighbouring tiles in pixels: the authors' value."""


def tile_starts(length: int, tile: int, overlap: int = 0) -> list[int]:
    """Compute the first pixels of the fewest tiles that cover a side. The last tile ends at the end of the side.

    Args:
        length: pixels of the side, at least ``tile``.
        tile: pixels of a tile.
        overlap: smallest overlap of neighbours, less than ``tile``.
    """
    return [*range(0, length - tile, tile - overlap), length - tile]


def tile_corners(
    size: tuple[int, int], tile: tuple[int, int], overlap: tuple[int, int] = (0, 0)
) -> Iterator[tuple[int, int]]:
    """Compute top and left of the tiles that cover a frame, row by row. Each argument is a height and a width."""
    tops, lefts = (tile_starts(*side) for side in zip(size, tile, overlap, strict=True))
    return itertools.product(tops, lefts)


def tile_weights(height: int, width: int) -> Tensor:
    """Compute the blending weights (height, width) of a tile: the distance to the border, 1 at the border."""
    rows, columns = (torch.arange(1, length + 1) for length in (height, width))
    down, across = torch.minimum(rows, rows.flip(0)), torch.minimum(columns, columns.flip(0))
    return torch.minimum(down[:, None], across[None]).float()


def predict_tiled_flow(
    predict: Callable[[Tensor], Tensor],
    frames: Tensor,
    tile: tuple[int, int],
    overlap: int = OVERLAP,
    batch_size: int = 1,
) -> Tensor:
    """Predict the flow between two frames of any size.

    Args:
        predict: returns the flow (b, 2, height, width) of tiles (b, 2, 3, height, width).
        frames: (2, 3, height, width). Frames smaller than a tile are padded with their border pixels.
        tile: height and width of a tile.
        overlap: smallest overlap of neighbouring tiles in pixels, limited to half of a tile.
        batch_size: tiles per batch.

    Returns:
        (2, height, width), float32, on the device of ``frames``.
    """
    height, width = frames.shape[2:]
    missing = max(0, tile[0] - height), max(0, tile[1] - width)
    frames = pad(frames, (0, missing[1], 0, missing[0]), mode="replicate")
    weights = tile_weights(*tile).to(frames.device)
    total = frames.new_zeros(2, *frames.shape[2:], dtype=torch.float32)
    weight = torch.zeros_like(total[0])
    overlaps = min(overlap, tile[0] // 2), min(overlap, tile[1] // 2)
    corners = list(tile_corners((frames.shape[2], frames.shape[3]), tile, overlaps))
    for start in range(0, len(corners), batch_size):
        slices = [(..., slice(y, y + tile[0]), slice(x, x + tile[1])) for y, x in corners[start : start + batch_size]]
        flows = predict(torch.stack([frames[area] for area in slices]))
        for area, flow in zip(slices, flows.float(), strict=True):
            total[area] += flow * weights
            weight[area] += weights
    return (total / weight)[:, :height, :width]
