"""Pairs of frames with the flow between them, and what can be done to a pair so that its flow stays true."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class FlowPair(NamedTuple):
    """Two frames and the flow from the first to the second.

    Attributes:
        first: (h, w, 3), uint8.
        second: the same of the second frame.
        flow: (h, w, 2), float32, to the right and down, in pixels; NaN where it is unknown.
    """

    first: np.ndarray
    second: np.ndarray
    flow: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.flow.shape[0], self.flow.shape[1]


class PairStore(ABC):
    """Where pairs come from, by their number."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def read(self, number: int) -> FlowPair:
        """One of them.

        Raises:
            DataError: if it cannot be read, or its parts are of different sizes.
        """

    @abstractmethod
    def place(self, number: int) -> str:
        """What to call it in a message."""

    @abstractmethod
    def size(self, number: int) -> tuple[int, int]:
        """Its height and width, without reading all of it."""


def reduce_pair(pair: FlowPair, factor: int) -> FlowPair:
    """The pair with ``factor`` by ``factor`` pixels averaged into one, those whose flow is unknown left out.

    Rows and columns beyond a multiple of ``factor`` are cut off.
    """
    if factor == 1:
        return pair
    height, width = (side // factor for side in pair.size)

    def blocks(array: np.ndarray) -> np.ndarray:
        """(h, w, c) as (blocks down, blocks across, pixels of a block, c)."""
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
    """A part of the pair, that of the second frame further down and to the right by ``shift``, and the flow less by
    it."""
    height, width = size
    down, right = shift
    return FlowPair(
        pair.first[top : top + height, left : left + width],
        pair.second[top + down : top + down + height, left + right : left + right + width],
        pair.flow[top : top + height, left : left + width] - np.array([right, down], np.float32),
    )


def mirror_pair(pair: FlowPair, horizontally: bool, vertically: bool) -> FlowPair:
    """The pair with left and right exchanged, or top and bottom, or both."""
    flips = slice(None, None, -1 if vertically else 1), slice(None, None, -1 if horizontally else 1)
    signs = np.array([-1 if horizontally else 1, -1 if vertically else 1], np.float32)
    return FlowPair(pair.first[flips], pair.second[flips], pair.flow[flips] * signs)


def frames_tensor(first: np.ndarray, second: np.ndarray) -> Tensor:
    """Two frames (h, w, 3), uint8, as a model takes them: (2, 3, h, w), float32, from -1 to 1."""
    pixels = torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2)
    return (pixels.float() / 127.5 - 1.0).contiguous()


def flow_tensor(flow: np.ndarray) -> Tensor:
    """A flow (h, w, 2) as a tensor (2, h, w)."""
    return torch.from_numpy(np.ascontiguousarray(flow.transpose(2, 0, 1)))
