"""Pairs of frames with the flow between them, and transformations of a pair that keep its flow correct."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class FlowPair(NamedTuple):
    """Two frames and the flow from the first to the second.

    Attributes:
        first: first frame, (height, width, 3), uint8.
        second: second frame, (height, width, 3), uint8.
        flow: (height, width, 2), float32, to the right and down, in pixels; NaN: unknown.
    """

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.flow.shape[0], self.flow.shape[1]


class PairStore(ABC):
    """Base class of stores of pairs, by number."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of pairs."""

    @abstractmethod
    def read(self, number: int) -> FlowPair:
        """Read a pair.

        Raises:
            DataError: if it cannot be read, or if frames and flow have different sizes.
        """

    @abstractmethod
    def location(self, number: int) -> str:
        """Return the name of a pair for messages."""

    @abstractmethod
    def size(self, number: int) -> tuple[int, int]:
        """Return the height and width of a pair without reading all of it."""


def reduce_pair(pair: FlowPair, factor: int) -> FlowPair:
    """Downscale a pair by averaging blocks of ``factor`` by ``factor`` pixels. Unknown flow is left out of the average.

    Rows and columns beyond a multiple of ``factor`` are dropped.
    """
    if factor == 1:
        return pair
    height, width = (side // factor for side in pair.size)

    def blocks(array: np.ndarray) -> np.ndarray:
        """Reshape (height, width, channels) to (rows of blocks, columns of blocks, pixels of a block, channels)."""
        cut = array[: height * factor, : width * factor].reshape(height, factor, width, factor, -1)
        return cut.swapaxes(1, 2).reshape(height, width, factor**2, -1)

    first, second = (
        np.rint(blocks(frame).mean(axis=2, dtype=np.float32)).astype(np.uint8) for frame in (pair.first, pair.second)
    )
    flow = blocks(pair.flow)
    known = np.isfinite(flow).all(axis=-1, keepdims=True)
    total, count = np.where(known, flow, 0.0).sum(axis=2), known.sum(axis=2)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return FlowPair(first, second, mean / factor)


def crop_pair(pair: FlowPair, top: int, left: int, size: tuple[int, int], shift: tuple[int, int] = (0, 0)) -> FlowPair:
    """Crop a pair. The crop of the second frame is shifted down and to the right by ``shift``, which is subtracted from
    the flow.
    """
    height, width = size
    down, right = shift
    return FlowPair(
        pair.first[top : top + height, left : left + width],
        pair.second[top + down : top + down + height, left + right : left + right + width],
        pair.flow[top : top + height, left : left + width] - np.array([right, down], np.float32),
    )


def mirror_pair(pair: FlowPair, horizontally: bool, vertically: bool) -> FlowPair:
    """Mirror a pair horizontally, vertically, or both."""
    flips = slice(None, None, -1 if vertically else 1), slice(None, None, -1 if horizontally else 1)
    signs = np.array([-1 if horizontally else 1, -1 if vertically else 1], np.float32)
    return FlowPair(pair.first[flips], pair.second[flips], pair.flow[flips] * signs)


def frames_tensor(first: np.ndarray, second: np.ndarray) -> Tensor:
    """Convert two frames (height, width, 3), uint8, to model input (2, 3, height, width), float32, from -1 to 1."""
    pixels = torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1.0).contiguous()


def flow_tensor(flow: np.ndarray) -> Tensor:
    """Convert a flow (height, width, 2) to a tensor (2, height, width)."""
    return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1)))
