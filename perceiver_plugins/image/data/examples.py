"""Examples of images, a batch at a time."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from perceiver_plugins.image.data.sources import ArrayStore, LabelledImages
from perceiver_plugins.image.data.transforms import Augmentation, ImageFormat, chance, to_pixels
from perceiver_plugins.sdk.data.datasets import take_labels
from perceiver_plugins.sdk.data.loading import BatchDataset

ImageBatch = dict[str, Tensor]
"""``pixel_values`` (b, channels, height, width), float32, and ``labels`` (b,), int64, or (b, classes) if mixed."""


class ImageExamples(BatchDataset):
    """The examples of a split: a batch is a function of the epoch, its indices and the seed.

    Args:
        images: the images.
        image_format: what they are to be like.
        augmentation: what is done to them at random, in training; None: nothing.
        seed: Seed of the run.
    """

    def __init__(
        self,
        images: LabelledImages,
        image_format: ImageFormat,
        augmentation: Augmentation | None = None,
        seed: int = 0,
    ) -> None:
        self.images = images
        self.image_format = image_format
        self.augmentation = augmentation if augmentation and augmentation.any else None
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, epoch: int, indices: np.ndarray) -> ImageBatch:
        """A batch. An index beyond the end asks for an example with the label IGNORED.

        Raises:
            DataError: If an image cannot be read.
        """
        inside, labels = take_labels(self.images.labels, indices)
        if self.augmentation is None:
            return {"pixel_values": self.image_format.normalize(self._pixels(inside)), "labels": labels}
        with chance(self.seed, epoch, int(indices[0])):
            pixel_values, labels = self.augmentation.batch(self._pixels(inside), labels)
        return {"pixel_values": pixel_values, "labels": labels}

    def _pixels(self, indices: Tensor) -> Tensor:
        if (pixels := self._ready_pixels) is not None:
            return pixels[self.images.numbers[indices]]
        wanted = self.image_format
        cut = self.augmentation.cut if self.augmentation else wanted.cut
        return to_pixels(
            [cut(self.images.read(index, wanted.num_channels, wanted.bit_depth)) for index in indices.tolist()]
        )

    @property
    def _ready_pixels(self) -> Tensor | None:
        """Those of all images, if they are in memory and nothing needs doing to each by itself."""
        store, wanted = self.images.store, self.image_format
        if not isinstance(store, ArrayStore) or (self.augmentation and self.augmentation.one_by_one):
            return None
        as_wanted = store.pixels.shape[1:] == (wanted.num_channels, *wanted.image_size) and wanted.crop_pct == 1
        return store.pixels if as_wanted else None
