"""The data module that all data modules of images share: sizes, normalisation, augmentation, labels."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from perceiver_plugins.image.data.bit_depth import find_bit_depth
from perceiver_plugins.image.data.decoding import MAX_BIT_DEPTH, MODES
from perceiver_plugins.image.data.examples import ImageExamples
from perceiver_plugins.image.data.sources import ImageHeader, ImageSplits, without_unreadable
from perceiver_plugins.image.data.transforms import Augmentation, ImageFormat, match_channels, timm_augmentation
from perceiver_plugins.sdk.data.file_trees import report_left_out
from perceiver_plugins.sdk.data.module import Classes, PerceiverDataModule
from perceiver_registry.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

USUAL_SIZE = (224, 224)
"""Size of images that have none in common, or a larger one."""


class ImageDataModule(Classes, PerceiverDataModule):
    """Images with a label each.

    Batches are dicts of ``pixel_values`` (b, channels, height, width), float32, normalised, and ``labels`` (b,),
    int64. Where images are mixed (mixup, cutmix), training labels are (b, classes), float32, and sum to 1.

    Images of any size and mode become ``image_size`` and ``num_channels``: the middle of an image is resized
    bicubically. What is transparent is laid on white; of an animation the first frame is read. Chance in training is a
    function of the seed, the epoch and the examples of a batch.

    Subclasses say where images come from: :meth:`load`.

    Args:
        image_size: Height and width (or one number for both) of the images that the model sees; null: that of the
            data if its images are of one size of at most 224 pixels, otherwise 224.
        num_channels: 1 (grey) or 3 (colours); null: that of the data set, for your own images and those of the hub 3.
        mean: What is subtracted from pixels from 0 to 1, for each channel; null: the data set's mean, for your own
            images and those of the hub ImageNet's.
        std: What pixels are divided by, for each channel; null: the data set's, or ImageNet's.
        crop_pct: Side of the part in the middle of an image that is looked at in evaluation, relative to the largest
            that fits; null: 0.875 where training crops at random, otherwise 1.
        bit_depth: Bits of grey images of 16 bits that are used, from 8 to 16; null: as many as the brightest of up to
            100 training images needs, 8, 10, 12, 14 or 16.
        min_crop: Train on parts of images, of a random place, size and aspect ratio, with at least this part of an
            image's area; 1: without. Null: 0.08 where images are larger than image_size, otherwise 1.
        augment: Automatic augmentation by timm, such as rand-m9-mstd0.5 (RandAugment), augmix-m3-w3 (AugMix) or
            original-mstd0.5 (AutoAugment); null: none.
        hflip: How often a training image is mirrored, from 0 to 1.
        random_shift: Pixels that a training image is moved by at most, up or down and left or right.
        random_rotation: Degrees that a training image is turned by at most, to either side.
        random_erasing: How often a rectangle of a training image is erased, from 0 to 1.
        mixup_alpha: Mix training images in pairs (mixup), by a part that is drawn from Beta(alpha, alpha); 0: do not.
        cutmix_alpha: Put parts of training images into others (cutmix), of an area that is drawn from
            Beta(alpha, alpha); 0: do not. With both, each batch is mixed in one of the two ways.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there are no images for training",
        "validation": "there are too few images to set some aside for validation",
        "test": "there is no test data",
    }
    """What to say where there is nothing in a split."""

    default_num_channels: ClassVar[int] = 3
    default_mean: ClassVar[tuple[float, ...]] = IMAGENET_MEAN
    default_std: ClassVar[tuple[float, ...]] = IMAGENET_STD

    skip_unreadable = False
    """Whether images that cannot be read are left out."""

    def __init__(
        self,
        image_size: int | tuple[int, int] | None = None,
        num_channels: int | None = None,
        mean: float | list[float] | None = None,
        std: float | list[float] | None = None,
        crop_pct: float | None = None,
        bit_depth: int | None = None,
        min_crop: float | None = None,
        augment: str | None = None,
        hflip: float = 0.0,
        random_shift: int = 0,
        random_rotation: float = 0.0,
        random_erasing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        if size is not None and not (len(size) == 2 and min(size) >= 1):
            raise UserError(
                f"image_size={image_size} must be a height and a width of at least 1, or one number for both"
            )
        if num_channels not in (None, *MODES):
            raise UserError(f"num_channels={num_channels} must be 1 (grey), 3 (colours) or null")
        _check_range(0, 1, hflip=hflip, random_erasing=random_erasing)
        _check_range(0, 180, random_rotation=random_rotation)
        _check_range(0, None, random_shift=random_shift, mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha)
        if bit_depth is not None and not 8 <= bit_depth <= MAX_BIT_DEPTH:
            raise UserError(f"bit_depth={bit_depth} must be from 8 to {MAX_BIT_DEPTH}")
        for flag, part in (("crop_pct", crop_pct), ("min_crop", min_crop)):
            if part is not None and not 0 < part <= 1:
                raise UserError(f"{flag}={part} must be more than 0 and at most 1")
        self.num_channels = num_channels or self.default_num_channels
        """Channels of the images that the model sees."""
        self.mean = self._per_channel("mean", mean, self.default_mean)
        self.std = self._per_channel("std", std, self.default_std)
        if min(self.std) <= 0:
            raise UserError(f"std={std} must be more than 0")
        self.random_changes: dict[str, Any] = {
            "augment": augment,
            "hflip": hflip,
            "random_shift": random_shift,
            "random_rotation": random_rotation,
            "random_erasing": random_erasing,
            "mixup_alpha": mixup_alpha,
            "cutmix_alpha": cutmix_alpha,
        }
        self._image_size = None if size is None else (size[0], size[1])
        self._crop_pct = crop_pct
        self._bit_depth = bit_depth
        self._min_crop = min_crop
        if augment is not None:  # a misspelt one is an error at once
            timm_augmentation(augment, ImageFormat(USUAL_SIZE, self.num_channels, self.mean, self.std))

    def _per_channel(
        self, flag: str, given: float | list[float] | None, default: tuple[float, ...]
    ) -> tuple[float, ...]:
        if given is None:
            return match_channels(default, self.num_channels)
        values = tuple(map(float, given)) if isinstance(given, list | tuple) else (float(given),)
        if len(values) not in (1, self.num_channels):
            raise UserError(f"{flag}={given} must be one number, or one for each of the {self.num_channels} channels")
        return match_channels(values, self.num_channels)

    # what subclasses say

    @property
    @abstractmethod
    def source(self) -> str:
        """What to call the data set."""

    @abstractmethod
    def load(self) -> ImageSplits:
        """The images of all splits and the names of their classes.

        Raises:
            DataError: If they cannot be found, or are not what they should be.
        """

    # what models and tasks ask

    @cached_property
    def splits(self) -> ImageSplits:
        """The data set, loaded at the first use."""
        splits = self.load()
        return without_unreadable(self.source, splits, self.num_channels) if self.skip_unreadable else splits

    @property
    def label_names(self) -> list[str]:
        """What the classes are called."""
        return self.splits.label_names

    @property
    def train_labels(self) -> Tensor:
        """The classes of the training data."""
        return self.splits.images["train"].labels

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the model sees."""
        if self._image_size is not None:
            return self._image_size
        if "image_size" in self.known:
            height, width = self.known["image_size"]
            return (height, width)
        sizes = set(self._sizes)
        height, width = sizes.pop() if len(sizes) == 1 else USUAL_SIZE
        return (height, width) if max(height, width) <= max(USUAL_SIZE) else USUAL_SIZE

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """Those of some of the images."""
        return [(header.height, header.width) for header in self._headers]

    @cached_property
    def _headers(self) -> list[ImageHeader]:
        """Those of some of the training images; none without training data. Reports what of the images is not read."""
        if "train" not in self.splits.images:
            return []
        headers = self.splits.images["train"].headers()
        if animated := sum(header.animated for header in headers):
            report_left_out(self.source, animated, f"of {len(headers)} images", "all frames or pages but the first")
        return headers

    @cached_property
    def bit_depth(self) -> int:
        """Bits of grey images of 16 bits that are used."""
        known = self._bit_depth or self.known.get("bit_depth")
        if known or "train" not in self.splits.images:
            return known or MAX_BIT_DEPTH
        return find_bit_depth(self.source, self.splits.images["train"], self._headers)

    @property
    def _larger(self) -> bool:
        """Whether most images are larger than what the model sees."""
        height, width = self.image_size
        return 2 * sum(h > height and w > width for h, w in self._sizes) > len(self._sizes)

    @property
    def min_crop(self) -> float:
        """The smallest part of an image's area that training looks at."""
        return self._min_crop or (0.08 if self._larger else 1.0)

    @property
    def crop_pct(self) -> float:
        """Side of the part of an image that evaluation looks at."""
        return self._crop_pct or self.known.get("crop_pct") or (0.875 if self.min_crop < 1 else 1.0)

    @cached_property
    def image_format(self) -> ImageFormat:
        """What the images are like that the model sees."""
        return ImageFormat(self.image_size, self.num_channels, self.mean, self.std, self.crop_pct, self.bit_depth)

    def description(self) -> dict[str, Any]:
        """What prediction needs to know about the data, as plain data: it goes into checkpoints."""
        return self.image_format.description()

    # loading

    def setup(self, stage: str | None = None) -> None:
        """Makes the data sets of all splits."""
        augmentation = Augmentation(self.image_format, self.num_classes, self.min_crop, **self.random_changes)
        for split, images in self.splits.images.items():
            changes = augmentation if split == "train" else None
            self.split_datasets[split] = ImageExamples(images, self.image_format, changes, self.seed)


def _check_range(low: float, high: float | None, **values: float) -> None:
    for flag, value in values.items():
        if value < low or (high is not None and value > high):
            limit = f"at least {low}" if high is None else f"from {low} to {high}"
            raise UserError(f"{flag}={value} must be {limit}")
