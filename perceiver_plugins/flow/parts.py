"""Frames of any size through a model that was trained on small ones: in overlapping parts, blended into each other.

After the Perceiver's authors (google-deepmind/deepmind-research, perceiver/colabs/optical_flow.ipynb). Unlike there, no
part is computed twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

OVERLAP = 20
"""Pixels that neighbouring parts overlap by at least, as the authors have it."""


def part_starts(length: int, part: int, overlap: int = 0) -> list[int]:
    """Where the parts of a side begin: as few as cover it, the last one flush with its end.

    Args:
        length: pixels of the side, at least ``part``.
        part: pixels of a part.
        overlap: pixels that neighbours share at least, fewer than ``part``.
    """
    return [*range(0, length - part, part - overlap), length - part]


def parts_of(
    size: tuple[int, int], part: tuple[int, int], overlap: tuple[int, int] = (0, 0)
) -> Iterator[tuple[int, int]]:
    """Top and left of the parts that cover a frame, row by row; each argument is a height and a width."""
    tops, lefts = (part_starts(*side) for side in zip(size, part, overlap, strict=True))
    return itertools.product(tops, lefts)


def part_weights(height: int, width: int) -> Tensor:
    """How much each pixel of a part counts, (h, w): 1 at the border, more by 1 for each pixel away from it."""
    rows, columns = (torch.arange(1, length + 1) for length in (height, width))
    down, across = torch.minimum(rows, rows.flip(0)), torch.minimum(columns, columns.flip(0))
    return torch.minimum(down[:, None], across[None]).float()


def flow_of_frames(
    predict: Callable[[Tensor], Tensor],
    frames: Tensor,
    part: tuple[int, int],
    overlap: int = OVERLAP,
    batch_size: int = 1,
) -> Tensor:
    """The flow between two frames of any size.

    Args:
        predict: gives the flow (b, 2, height, width) of parts (b, 2, 3, height, width).
        frames: (2, 3, h, w). What lacks to the size of a part is filled up with the colours of the borders.
        part: height and width of a part.
        overlap: pixels that neighbouring parts overlap by at least; half of a part at most.
        batch_size: parts that are predicted together.

    Returns:
        (2, h, w), float32, on the device of ``frames``.
    """
    height, width = frames.shape[2:]
    lacking = max(0, part[0] - height), max(0, part[1] - width)
    frames = pad(frames, (0, lacking[1], 0, lacking[0]), mode="replicate")
    weights = part_weights(*part).to(frames.device)
    total = frames.new_zeros(2, *frames.shape[2:], dtype=torch.float32)
    weight = torch.zeros_like(total[0])
    overlaps = min(overlap, part[0] // 2), min(overlap, part[1] // 2)
    corners = list(parts_of((frames.shape[2], frames.shape[3]), part, overlaps))
    for start in range(0, len(corners), batch_size):
        places = [(..., slice(y, y + part[0]), slice(x, x + part[1])) for y, x in corners[start : start + batch_size]]
        flows = predict(torch.stack([frames[place] for place in places]))
        for place, flow in zip(places, flows.float(), strict=True):
            total[place] += flow * weights
            weight[place] += weights
    return (total / weight)[:, :height, :width]
