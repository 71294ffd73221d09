"""Datasets of crops of pairs of frames: random crops in training, tiles in evaluation."""

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
from perceiver_plugins.flow.tiling import tile_corners
from perceiver_plugins.sdk.data.datasets import ExampleDataset
from perceiver_plugins.sdk.data.loading import example_rng
from perceiver_plugins.sdk.errors import DataError

MAX_CACHED_PAIRS = 32
"""Largest number of pairs of a data set that is cached in memory. Arbitrary."""

FlowExample = dict[str, Tensor]
"""``frames`` (2, 3, height, width), float32, from -1 to 1, and ``labels`` (2, height, width), float32, in pixels; NaN:
unknown.
"""


@dataclass(frozen=True)
class FlowAugmentation:
    """Random augmentation of training examples.

    Attributes:
        shift: largest translation of the crop of the second frame in pixels, vertically and horizontally.
        hflip: probability of horizontal mirroring.
        vflip: probability of vertical mirroring.
    """

    shift: int = 0
    hflip: float = 0.0
    vflip: float = 0.0


class DownscaledPairs:
    """Downscaled pairs of a store. Small data sets are cached in memory.

    Args:
        store: the store of the pairs.
        downscale: factor by which height and width are reduced by averaging.
        image_size: height and width of crops: the smallest size of a frame.
    """

    def __init__(self, store: PairStore, downscale: int, image_size: tuple[int, int]) -> None:
        self.store = store
        self.downscale = downscale
        self.image_size = image_size
        self._cache: dict[int, FlowPair] = {}

    def __len__(self) -> int:
        return len(self.store)

    def read(self, number: int) -> FlowPair:
        """Read a pair.

        Raises:
            DataError: if it cannot be read, or is too small.
        """
        if number in self._cache:
            return self._cache[number]
        pair = reduce_pair(self.store.read(number), self.downscale)
        self._check_size(number, pair.size)
        if len(self) <= MAX_CACHED_PAIRS:
            self._cache[number] = pair
        return pair

    def size(self, number: int) -> tuple[int, int]:
        """Return the height and width of a downscaled pair.

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
                f"{self.store.location(number)}: frames of {size[0]}x{size[1]} pixels{reduced} are smaller than "
                f"image_size={self.image_size[0]}x{self.image_size[1]}"
            )


class RandomCrops(ExampleDataset):
    """Random crops of pairs for training, each a function of the seed, the epoch and the index.

    Args:
        pairs: the pairs.
        crops_per_pair: crops of each pair per epoch.
        augmentation: random augmentation of the crops.
        seed: seed of the run.
    """

    def __init__(self, pairs: DownscaledPairs, crops_per_pair: int, augmentation: FlowAugmentation, seed: int) -> None:
        super().__init__(seed)
        self.pairs = pairs
        self.crops_per_pair = crops_per_pair
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.pairs) * self.crops_per_pair

    def example(self, index: int, rng: np.random.Generator | None) -> FlowExample:
        rng = rng or example_rng(self.seed, -1, index)
        pair = self.pairs.read(index % len(self.pairs))
        corner, shift = [], []
        for side, crop in zip(pair.size, self.pairs.image_size, strict=True):
            max_shift = min(self.augmentation.shift, side - crop)
            offset = int(rng.integers(-max_shift, max_shift + 1))
            corner.append(int(rng.integers(max(0, -offset), side - crop - max(0, offset) + 1)))
            shift.append(offset)
        pair = crop_pair(pair, corner[0], corner[1], self.pairs.image_size, (shift[0], shift[1]))
        horizontally, vertically = rng.random(2) < (self.augmentation.hflip, self.augmentation.vflip)
        return _example(mirror_pair(pair, bool(horizontally), bool(vertically)))


class Tiles(ExampleDataset):
    """The fewest tiles that cover all pairs, for evaluation.

    Args:
        pairs: the pairs.
    """

    def __init__(self, pairs: DownscaledPairs) -> None:
        super().__init__()
        self.pairs = pairs
        self.corners = [list(tile_corners(pairs.size(number), pairs.image_size)) for number in range(len(pairs))]
        self.ends = list(accumulate(map(len, self.corners)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def example(self, index: int, rng: np.random.Generator | None) -> FlowExample:
        number = bisect_right(self.ends, index)
        top, left = self.corners[number][index - self.ends[number]]  # a negative index from the end of the pair's tiles
        return _example(crop_pair(self.pairs.read(number), top, left, self.pairs.image_size))


def _example(pair: FlowPair) -> FlowExample:
    return {"frames": frames_tensor(pair.first, pair.second), "labels": flow_tensor(pair.flow)}
