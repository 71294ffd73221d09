"""Dataset that makes whole batches of images."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from perceiver_plugins.image.data.sources import ArrayStore, LabelledImages
from perceiver_plugins.image.data.transforms import Augmentation, ImageFormat, seeded_generators, to_pixels
from perceiver_plugins.sdk.data.datasets import take_labels
from perceiver_plugins.sdk.data.loading import BatchDataset

ImageBatch = dict[str, Tensor]
"""``pixel_values`` (b, channels, height, width), float32, and ``labels`` (b,), int64, or (b, classes) if mixed."""


class ImageExamples(BatchDataset):
    """Dataset of a split. A batch is a function of the epoch, its indices and the seed.

    Args:
        images: the images of the split.
        image_format: format of the model's inputs.
        augmentation: random augmentation for training; None: no augmentation.
        seed: seed of the run.
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
        """Make a batch. An index beyond the end returns an example with the label IGNORED.

        Raises:
            DataError: If an image cannot be read.
        """
        inside, labels = take_labels(self.images.labels, indices)
        if self.augmentation is None:
            return {"pixel_values": self.image_format.normalize(self._pixels(inside)), "labels": labels}
        with seeded_generators(self.seed, epoch, int(indices[0])):
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
        """Pixels of all images, if they are in memory and need no processing of single images."""
        store, wanted = self.images.store, self.image_format
        if not isinstance(store, ArrayStore) or (self.augmentation and self.augmentation.processes_single_images):
            return None
        is_ready = store.pixels.shape[1:] == (wanted.num_channels, *wanted.image_size) and wanted.crop_pct == 1
        return store.pixels if is_ready else None
