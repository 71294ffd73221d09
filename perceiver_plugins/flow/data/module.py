"""The data module that all data modules of optical flow share: sizes, random parts, splits."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

from perceiver_plugins.flow.data.examples import AllParts, Chance, Pairs, RandomParts
from perceiver_plugins.flow.data.pairs import PairStore
from perceiver_plugins.sdk.data.module import PerceiverDataModule, check_positive
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError


class FlowDataModule(PerceiverDataModule):
    """Pairs of frames with the flow between them.

    Batches are dicts of ``frames`` (b, 2, 3, h, w), float32, from -1 to 1, and ``labels`` (b, 2, h, w), float32: how
    many pixels each pixel of the first frame moves to the right and down, NaN where nobody knows. In training these are
    parts of random places, a function of the seed, the epoch and the example alone; in evaluation, as few parts as
    cover all frames.

    Subclasses say where pairs come from: :meth:`load`.

    Args:
        image_size: Height and width of the parts of frames that the model sees; null: those of the first pair.
        downscale: Average so many pixels, in height and in width, into one, before anything else.
        crops_per_pair: How many random parts of each pair make an epoch.
        random_shift: Pixels that the part of the second frame is moved by at most, up or down and left or right; the
            flow changes with it.
        hflip: How often left and right of a training example are exchanged, from 0 to 1.
        vflip: How often top and bottom are.
        batch_size: Examples per batch and device, in training.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there are no pairs of frames for training",
        "validation": "there are too few pairs of frames to set some aside for validation",
        "test": "there is no test data: `perceiver validate` evaluates the pairs that are set aside for validation",
    }
    """What to say where there is nothing in a split."""

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        downscale: int = 1,
        crops_per_pair: int = 1,
        random_shift: int = 0,
        hflip: float = 0.0,
        vflip: float = 0.0,
        batch_size: int = 8,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if image_size is not None and not (len(image_size) == 2 and min(image_size) >= 1):
            raise UserError(f"image_size={image_size} must be a height and a width of at least 1")
        check_positive(downscale=downscale, crops_per_pair=crops_per_pair)
        if random_shift < 0:
            raise UserError(f"random_shift={random_shift} must be at least 0")
        for flag, often in (("hflip", hflip), ("vflip", vflip)):
            if not 0 <= often <= 1:
                raise UserError(f"{flag}={often} must be from 0 to 1")
        self.downscale = downscale
        self.crops_per_pair = crops_per_pair
        self.chance = Chance(random_shift, hflip, vflip)
        self._image_size = None if image_size is None else (image_size[0], image_size[1])

    @abstractmethod
    def load(self) -> dict[str, PairStore]:
        """The pairs of "train", "validation" and "test", as far as there are any.

        Raises:
            DataError: If they cannot be found, or are not what they should be.
        """

    @cached_property
    def stores(self) -> dict[str, PairStore]:
        """The pairs of all splits, found at the first use."""
        return self.load()

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the parts that the model sees."""
        if self._image_size is not None:
            return self._image_size
        train = self.stores.get("train")
        if train is None or not len(train):
            raise DataError(self.missing_split["train"])
        height, width = train.size(0)
        return height // self.downscale, width // self.downscale

    def description(self) -> dict[str, Any]:
        return {"image_size": list(self.image_size), "downscale": self.downscale}

    def setup(self, stage: str | None = None) -> None:
        if self.split_datasets:
            return
        for split, store in self.stores.items():
            if not len(store):
                continue
            pairs = Pairs(store, self.downscale, self.image_size)
            self.split_datasets[split] = (
                RandomParts(pairs, self.crops_per_pair, self.chance, self.seed) if split == "train" else AllParts(pairs)
            )
