"""Parts of pairs of frames: drawn at random in training, all of them in evaluation."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from torch import Tensor

from perceiver_plugins.flow.data.pairs import (
    FlowPair,
    PairStore,
    crop_pair,
    flow_tensor,
    frames_tensor,
    mirror_pair,
    reduce_pair,
)
from perceiver_plugins.flow.parts import parts_of
from perceiver_plugins.sdk.data.datasets import ExampleDataset
from perceiver_plugins.sdk.data.loading import example_rng
from perceiver_plugins.sdk.errors import DataError

KEPT = 32
"""So many pairs, at most, are kept in memory rather than read again."""

FlowExample = dict[str, Tensor]
"""``frames`` (2, 3, h, w), float32, from -1 to 1, and ``labels`` (2, h, w), float32, in pixels, NaN where unknown."""


@dataclass(frozen=True)
class Chance:
    """What is drawn at random for a training example.

    Attributes:
        shift: pixels that the part of the second frame is moved by at most, in height and in width.
        hflip: how often left and right are exchanged, from 0 to 1.
        vflip: how often top and bottom are.
    """

    shift: int = 0
    hflip: float = 0.0
    vflip: float = 0.0


class Pairs:
    """Pairs of a store, averaged down and checked; a few are kept in memory.

    Args:
        store: where they come from.
        downscale: so many pixels, in height and in width, become one.
        image_size: height and width that the parts will have; no frame may be smaller.
    """

    def __init__(self, store: PairStore, downscale: int, image_size: tuple[int, int]) -> None:
        self.store = store
        self.downscale = downscale
        self.image_size = image_size
        self._kept: dict[int, FlowPair] = {}

    def __len__(self) -> int:
        return len(self.store)

    def read(self, number: int) -> FlowPair:
        """One pair.

        Raises:
            DataError: if it cannot be read, or is too small.
        """
        if number in self._kept:
            return self._kept[number]
        pair = reduce_pair(self.store.read(number), self.downscale)
        self._check_size(number, pair.size)
        if len(self) <= KEPT:
            self._kept[number] = pair
        return pair

    def size(self, number: int) -> tuple[int, int]:
        """Height and width of a pair.

        Raises:
            DataError: if it cannot be read, or is too small.
        """
        height, width = self.store.size(number)
        size = height // self.downscale, width // self.downscale
        self._check_size(number, size)
        return size

    def _check_size(self, number: int, size: tuple[int, int]) -> None:
        if size[0] < self.image_size[0] or size[1] < self.image_size[1]:
            reduced = f" after downscale={self.downscale}" if self.downscale > 1 else ""
            raise DataError(
                f"{self.store.place(number)}: frames of {size[0]}x{size[1]} pixels{reduced} are smaller than "
                f"image_size={self.image_size[0]}x{self.image_size[1]} of the parts that the model sees"
            )


class RandomParts(ExampleDataset):
    """Parts of pairs for training, each a function of the seed, the epoch and the index alone.

    Args:
        pairs: the pairs.
        crops_per_pair: how many parts of each pair make an epoch.
        chance: what else is drawn at random.
        seed: seed of the run.
    """

    def __init__(self, pairs: Pairs, crops_per_pair: int, chance: Chance, seed: int) -> None:
        super().__init__(seed)
        self.pairs = pairs
        self.crops_per_pair = crops_per_pair
        self.chance = chance

    def __len__(self) -> int:
        return len(self.pairs) * self.crops_per_pair

    def example(self, index: int, rng: np.random.Generator | None) -> FlowExample:
        rng = rng or example_rng(self.seed, -1, index)
        pair = self.pairs.read(index % len(self.pairs))
        corner, shift = [], []
        for side, part in zip(pair.size, self.pairs.image_size, strict=True):
            farthest = min(self.chance.shift, side - part)
            moved = int(rng.integers(-farthest, farthest + 1))
            corner.append(int(rng.integers(max(0, -moved), side - part - max(0, moved) + 1)))
            shift.append(moved)
        pair = crop_pair(pair, corner[0], corner[1], self.pairs.image_size, (shift[0], shift[1]))
        horizontally, vertically = rng.random(2) < (self.chance.hflip, self.chance.vflip)
        return _example(mirror_pair(pair, bool(horizontally), bool(vertically)))


class AllParts(ExampleDataset):
    """As few parts as cover all pairs, for evaluation.

    Args:
        pairs: the pairs.
    """

    def __init__(self, pairs: Pairs) -> None:
        super().__init__()
        self.pairs = pairs
        self.corners = [list(parts_of(pairs.size(number), pairs.image_size)) for number in range(len(pairs))]
        self.ends = list(accumulate(map(len, self.corners)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def example(self, index: int, rng: np.random.Generator | None) -> FlowExample:
        number = bisect_right(self.ends, index)
        top, left = self.corners[number][index - self.ends[number]]  # counted from the end of its pair's
        return _example(crop_pair(self.pairs.read(number), top, left, self.pairs.image_size))


def _example(pair: FlowPair) -> FlowExample:
    return {"frames": frames_tensor(pair.first, pair.second), "labels": flow_tensor(pair.flow)}
