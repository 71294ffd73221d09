"""Base class of optical flow data modules: sizes, crops, splits."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

from perceiver_plugins.flow.data.examples import DownscaledPairs, FlowAugmentation, RandomCrops, Tiles
from perceiver_plugins.flow.data.pairs import PairStore
from perceiver_plugins.sdk.data.module import PerceiverDataModule, check_positive
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError


class FlowDataModule(PerceiverDataModule):
    """Base class of pairs of frames with the flow between them.

    Batches are dicts of ``frames`` (b, 2, 3, height, width), float32, from -1 to 1, and ``labels`` (b, 2, height,
    width), float32: the motion of each pixel of the first frame to the right and down, in pixels, NaN where it is
    unknown. Training uses random crops, a function of seed, epoch and index. Evaluation uses the smallest number of
    tiles that cover the whole frame.

    Subclasses implement :meth:`load`.

    Args:
        image_size: Height and width of the model's input frames; null: those of the first pair.
        downscale: Factor by which height and width of frames are reduced by averaging, before anything else.
        crops_per_pair: Random crops of each pair per epoch.
        random_shift: Largest translation of the crop of the second frame in pixels, vertically and horizontally; the
            flow changes accordingly.
        hflip: Probability of mirroring a training example horizontally.
        vflip: Probability of mirroring a training example vertically.
        batch_size: Examples per batch and device, in training.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "no pairs of frames for training",
        "validation": "no validation data (too few pairs of frames to split some off)",
        "test": "no test data (`perceiver validate` evaluates the validation pairs)",
    }
    """Error messages of empty splits."""

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
        for flag, probability in (("hflip", hflip), ("vflip", vflip)):
            if not 0 <= probability <= 1:
                raise UserError(f"{flag}={probability} must be from 0 to 1")
        self.downscale = downscale
        self.crops_per_pair = crops_per_pair
        self.augmentation = FlowAugmentation(random_shift, hflip, vflip)
        self._image_size = None if image_size is None else (image_size[0], image_size[1])

    @abstractmethod
    def load(self) -> dict[str, PairStore]:
        """Load the pairs of "train", "validation" and "test", if they exist.

        Raises:
            DataError: If files are missing or invalid.
        """

    @cached_property
    def stores(self) -> dict[str, PairStore]:
        """The pairs of all splits, loaded on first use."""
        return self.load()

    @cached_property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input frames."""
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
            pairs = DownscaledPairs(store, self.downscale, self.image_size)
            self.split_datasets[split] = (
                RandomCrops(pairs, self.crops_per_pair, self.augmentation, self.seed)
                if split == "train"
                else Tiles(pairs)
            )
