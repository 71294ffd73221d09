"""Base class of image data modules: image size, normalisation, augmentation, labels."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, ClassVar

from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor

from perceiver_plugins.image.data.bit_depth import find_bit_depth
from perceiver_plugins.image.data.decoding import MAX_BIT_DEPTH, MODES
from perceiver_plugins.image.data.examples import ImageExamples
from perceiver_plugins.image.data.sources import ImageHeader, ImageSplits, remove_unreadable
from perceiver_plugins.image.data.transforms import Augmentation, ImageFormat, match_channels, timm_augmentation
from perceiver_plugins.sdk.data.file_trees import printable
from perceiver_plugins.sdk.data.module import Classes, PerceiverDataModule
from perceiver_registry.errors import UserError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

HFLIP = 0.5
"""Default ``hflip`` of data that is augmented by default (He et al., arXiv 1512.03385, section 4.2)."""

SHIFT = 1 / 8
"""Default ``random_shift`` of such data, relative to the smaller side (ibid.: 4 of 32 pixels)."""


class ImageDataModule(Classes, PerceiverDataModule):
    """Base class of data modules of labelled images.

    Batches are dicts of ``pixel_values`` (b, channels, height, width), float32, normalised, and ``labels`` (b,),
    int64. With mixup or CutMix, training labels are (b, classes), float32, and sum to 1. Images with any number of
    classes have labels (b, classes), float32: 0, 1, or NaN where unknown.

    Images of any size and mode are converted to ``image_size`` and ``num_channels``: the centre crop is resized
    bicubically. Transparent images are composed on white; the first frame of an animation is read. Augmentation is a
    function of the seed, the epoch and the examples of a batch.

    Subclasses implement :meth:`load`.

    Args:
        image_size: Height and width (or one number for both) of the model's input images; null: that of the data if
            its images have one size of at most 64 pixels, otherwise 64 (224 for imagenet).
        num_channels: 1 (greyscale) or 3 (RGB); null: that of the data set, or 3 for your own images and hub data sets.
        mean: Mean of pixels from 0 to 1, for each channel; null: the data set's, or ImageNet's for your own images and
            hub data sets.
        std: Standard deviation of pixels from 0 to 1, for each channel; null: as for mean.
        crop_pct: Side of the centre crop in evaluation, relative to the largest that fits; null: 0.875 with random
            crops in training, otherwise 1.
        bit_depth: Number of bits that the values of 16-bit greyscale images use, from 8 to 16; null: as many as the
            brightest of up to 100 training images needs (8, 10, 12, 14 or 16).
        min_crop: Smallest area of random crops in training, relative to the image; 1: no random crops; null: 0.35
            (0.08 for imagenet) if most images are larger than image_size, otherwise 1.
        augment: Automatic augmentation of timm, such as rand-m9-mstd0.5 (RandAugment), augmix-m3-w3 (AugMix) or
            original-mstd0.5 (AutoAugment); null: none.
        hflip: Probability of mirroring a training image; null: 0.5 for your own images, hub data sets and
            CIFAR-10 unless most are greyscale (such as scanned digits), otherwise 0.
        random_shift: Largest translation of a training image in pixels, vertically and horizontally; null: an eighth of
            image_size for the same data unless there are random crops, otherwise 0.
        random_rotation: Largest rotation of a training image in degrees, in both directions.
        random_erasing: Probability of erasing a rectangle of a training image.
        mixup_alpha: Mix training images in pairs (mixup), with weights from Beta(alpha, alpha); 0: no mixup.
        cutmix_alpha: Replace parts of training images by parts of others (CutMix), with areas from
            Beta(alpha, alpha); 0: no CutMix. With both, one of the two is chosen for each batch.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "no images for training",
        "validation": "no validation data (too few images to split some off)",
        "test": "no test data",
    }
    """Error messages of empty splits."""

    default_num_channels: ClassVar[int] = 3
    default_mean: ClassVar[tuple[float, ...]] = IMAGENET_MEAN
    default_std: ClassVar[tuple[float, ...]] = IMAGENET_STD

    default_image_size: ClassVar[tuple[int, int]] = (64, 64)
    """Default ``image_size`` if the images differ in size or are larger. A default run takes minutes on a CPU."""

    default_min_crop: ClassVar[float] = 0.35
    """Default ``min_crop`` if most images are larger than ``image_size``."""

    augmented_by_default: ClassVar[bool] = False
    """Mirror and shift training images unless ``hflip`` and ``random_shift`` are given."""

    skip_unreadable = False
    """Leave out images that cannot be read."""

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
        hflip: float | None = None,
        random_shift: int | None = None,
        random_rotation: float = 0.0,
        random_erasing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._image_size = _height_and_width(image_size)
        if num_channels not in (None, *MODES):
            raise UserError(f"num_channels={num_channels} must be 1 (greyscale), 3 (RGB) or null")
        _check_range(0, 1, hflip=hflip, random_erasing=random_erasing)
        _check_range(0, 180, random_rotation=random_rotation)
        _check_range(0, None, random_shift=random_shift, mixup_alpha=mixup_alpha, cutmix_alpha=cutmix_alpha)
        _check_range(8, MAX_BIT_DEPTH, bit_depth=bit_depth)
        _check_fraction(crop_pct=crop_pct, min_crop=min_crop)
        self.num_channels = num_channels or self.default_num_channels
        """Channels of the model's input images."""
        self.mean = self._per_channel("mean", mean, self.default_mean)
        self.std = self._per_channel("std", std, self.default_std)
        if min(self.std) <= 0:
            raise UserError(f"std={std} must be more than 0")
        self._augmentation_options: dict[str, Any] = {
            "augment": augment,
            "random_rotation": random_rotation,
            "random_erasing": random_erasing,
            "mixup_alpha": mixup_alpha,
            "cutmix_alpha": cutmix_alpha,
        }
        self._crop_pct = crop_pct
        self._bit_depth = bit_depth
        self._min_crop = min_crop
        self._hflip = hflip
        self._random_shift = random_shift
        if augment is not None:  # reports a misspelt name before any data is loaded
            timm_augmentation(augment, ImageFormat(self.default_image_size, self.num_channels, self.mean, self.std))

    def _per_channel(
        self, flag: str, given: float | list[float] | None, default: tuple[float, ...]
    ) -> tuple[float, ...]:
        if given is None:
            return match_channels(default, self.num_channels)
        values = tuple(map(float, given)) if isinstance(given, list | tuple) else (float(given),)
        if len(values) not in (1, self.num_channels):
            raise UserError(f"{flag}={given} must be one number, or one for each of the {self.num_channels} channels")
        return match_channels(values, self.num_channels)

    # Implemented by subclasses

    @property
    @abstractmethod
    def source(self) -> str:
        """Name of the data set in messages."""

    @abstractmethod
    def load(self) -> ImageSplits:
        """Load the images of all splits and the names of their classes.

        Raises:
            DataError: If images are missing or invalid.
        """

    # Read by models and tasks

    @cached_property
    def splits(self) -> ImageSplits:
        """The data set, loaded on first use."""
        splits = self.load()
        return remove_unreadable(self.source, splits, self.num_channels) if self.skip_unreadable else splits

    @property
    def label_names(self) -> list[str]:
        """Names of the classes."""
        return self.splits.label_names

    @property
    def train_labels(self) -> Tensor:
        """Class indices (n,) of the training data."""
        return self.splits.images["train"].labels

    @property
    def multi_label(self) -> bool | None:  # type: ignore[override]
        """Images have any number of classes."""
        return any(images.labels.dim() == 2 for images in self.splits.images.values())

    @property
    def num_train_examples(self) -> int | None:
        """Number of training images."""
        return len(self.train_labels) if "train" in self.splits.images else None

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the model's input images."""
        if self._image_size is not None:
            return self._image_size
        if "image_size" in self.known:
            height, width = self.known["image_size"]
            return (height, width)
        sizes = set(self._sizes)
        usual = self.default_image_size
        size = sizes.pop() if len(sizes) == 1 else usual
        return size if max(size) <= max(usual) else usual

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """Height and width of some of the training images."""
        return [(header.height, header.width) for header in self._headers]

    @cached_property
    def _headers(self) -> list[ImageHeader]:
        """Headers of some of the training images. Reports frames and pages that are not read."""
        if "train" not in self.splits.images:
            return []
        headers = self.splits.images["train"].headers()
        if animated := sum(header.animated for header in headers):
            rank_zero_info(
                printable(
                    f"{self.source}: {animated} of {len(headers)} images have several frames or pages, of which only "
                    "the first is read"
                )
            )
        return headers

    @cached_property
    def bit_depth(self) -> int:
        """Number of bits that the values of 16-bit greyscale images use."""
        known = self._bit_depth or self.known.get("bit_depth")
        if known or "train" not in self.splits.images:
            return known or MAX_BIT_DEPTH
        return find_bit_depth(self.source, self.splits.images["train"], self._headers)

    @property
    def _has_larger_images(self) -> bool:
        """Check whether most images are larger than ``image_size``."""
        height, width = self.image_size
        return 2 * sum(h > height and w > width for h, w in self._sizes) > len(self._sizes)

    @property
    def min_crop(self) -> float:
        """Smallest area of random crops in training, relative to the image."""
        return self._min_crop or (self.default_min_crop if self._has_larger_images else 1.0)

    @property
    def augmentation_options(self) -> dict[str, Any]:
        """Options of the augmentation of training images except ``min_crop``."""
        return self._augmentation_options | {"hflip": self.hflip, "random_shift": self.random_shift}

    @property
    def hflip(self) -> float:
        """Probability of mirroring a training image."""
        if self._hflip is not None or not self.augmented_by_default:
            return self._hflip or 0.0
        # Colour distinguishes photos from scans of text and digits, whose mirror images have another meaning.
        return HFLIP if 2 * sum(header.grey for header in self._headers) <= len(self._headers) else 0.0

    @property
    def random_shift(self) -> int:
        """Largest translation of a training image in pixels."""
        if self._random_shift is not None or not self.augmented_by_default:
            return self._random_shift or 0
        return 0 if self.min_crop < 1 else int(SHIFT * min(self.image_size))

    @property
    def crop_pct(self) -> float:
        """Side of the centre crop in evaluation, relative to the largest that fits."""
        return self._crop_pct or self.known.get("crop_pct") or (0.875 if self.min_crop < 1 else 1.0)

    @cached_property
    def image_format(self) -> ImageFormat:
        """Format of the model's input images."""
        return ImageFormat(self.image_size, self.num_channels, self.mean, self.std, self.crop_pct, self.bit_depth)

    def description(self) -> dict[str, Any]:
        """Describe the data for prediction, as plain data that is stored in checkpoints."""
        return self.image_format.description()

    # Datasets

    def setup(self, stage: str | None = None) -> None:
        """Create the datasets of all splits.

        Raises:
            UserError: If mixup or CutMix is set for multi-label images.
        """
        mixes = [name for name in ("mixup_alpha", "cutmix_alpha") if self._augmentation_options[name]]
        if mixes and self.multi_label:
            raise UserError(f"{mixes[0]}: not supported for multi-label images (leave it out)")
        augmentation = Augmentation(self.image_format, self.num_classes, self.min_crop, **self.augmentation_options)
        for split, images in self.splits.images.items():
            self.split_datasets[split] = ImageExamples(
                images, self.image_format, augmentation if split == "train" else None, self.seed
            )


def _height_and_width(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if size is None:
        return None
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"image_size={image_size} must be a height and a width of at least 1, or one number for both")
    return size[0], size[1]


def _check_fraction(**values: float | None) -> None:
    for flag, value in values.items():
        if value is not None and not 0 < value <= 1:
            raise UserError(f"{flag}={value} must be more than 0 and at most 1")


def _check_range(low: float, high: float | None, **values: float | None) -> None:
    for flag, value in values.items():
        if value is not None and (value < low or (high is not None and value > high)):
            limit = f"at least {low}" if high is None else f"from {low} to {high}"
            raise UserError(f"{flag}={value} must be {limit}")
