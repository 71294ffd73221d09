"""Preprocessing of images: the format of the model's inputs, and random augmentation for training."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import RandomResizedCrop, v2

from perceiver_plugins.image.data.decoding import MAX_BIT_DEPTH, MAX_PIXELS
from perceiver_plugins.sdk.data.loading import example_rng
from perceiver_registry.errors import UserError

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a crop, in pixels."""


def _is_size(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(type(each) is int for each in value):
        return False
    return min(value) >= 1 and value[0] * value[1] <= MAX_PIXELS


def _are_numbers(value: Any, lowest: float) -> bool:
    if not isinstance(value, list | tuple) or not value or not all(type(each) in (int, float) for each in value):
        return False
    return all(lowest <= each <= MAX_STATISTIC for each in value)


MAX_STATISTIC = 1e6
"""Largest mean and standard deviation of pixels. Arbitrary; pixels are from 0 to 1."""

REQUIREMENTS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "image_size": (_is_size, f"two whole numbers of at least 1, and at most {MAX_PIXELS:,} pixels"),
    "num_channels": (lambda value: type(value) is int and value >= 1, "a whole number of at least 1"),
    "mean": (lambda value: _are_numbers(value, -MAX_STATISTIC), "a list of numbers, one for each channel"),
    "std": (lambda value: _are_numbers(value, 1 / MAX_STATISTIC), "a list of numbers above 0, one for each channel"),
    "crop_pct": (lambda value: type(value) in (int, float) and 0 < value <= 1, "above 0 and at most 1"),
    "bit_depth": (lambda value: type(value) is int and 1 <= value <= MAX_BIT_DEPTH, f"from 1 to {MAX_BIT_DEPTH}"),
}
"""Check of each entry of the description of an :class:`ImageFormat`, which may come from a checkpoint."""


@dataclass(frozen=True)
class ImageFormat:
    """Format of a model's input images.

    Args:
        image_size: height and width.
        num_channels: 1 (greyscale) or 3 (RGB).
        mean: mean of each channel of pixels from 0 to 1, for normalisation.
        std: standard deviation of each channel.
        crop_pct: side of the centre crop, relative to the largest crop with the aspect ratio of ``image_size``.
        bit_depth: number of bits that the values of 16-bit greyscale images use.
    """

    image_size: tuple[int, int]
    num_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    bit_depth: int = MAX_BIT_DEPTH

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> ImageFormat:
        """Create the format from the result of :meth:`description`.

        Raises:
            UserError: If an entry is missing or invalid.
        """
        described = {"bit_depth": MAX_BIT_DEPTH, **description}
        for name, (is_valid, requirement) in REQUIREMENTS.items():
            if name not in described:
                raise UserError(f"the model was not trained on images: the description of its data lacks {name!r}")
            if not is_valid(described[name]):
                raise UserError(f"checkpoint: {name}: must be {requirement}")
        channels = described["num_channels"]
        if any(len(described[name]) not in (1, channels) for name in ("mean", "std")):
            raise UserError(f"checkpoint: mean and std: must be lists of {channels} numbers, one for each channel")
        lists = ("image_size", "mean", "std")
        values: dict[str, Any] = {name: described[name] for name in REQUIREMENTS}
        return cls(**values | {name: tuple(values[name]) for name in lists})

    def description(self) -> dict[str, Any]:
        """Return the format as plain data."""
        return {
            "image_size": list(self.image_size),
            "num_channels": self.num_channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "crop_pct": self.crop_pct,
            "bit_depth": self.bit_depth,
        }

    def centre(self, image: Image.Image) -> Box:
        """Compute the centre crop of an image."""
        height, width = self.image_size
        scale = self.crop_pct * min(image.height / height, image.width / width)
        left = max(0.0, (image.width - scale * width) / 2)
        top = max(0.0, (image.height - scale * height) / 2)
        return left, top, min(image.width, left + scale * width), min(image.height, top + scale * height)

    def cut(self, image: Image.Image, box: Box | None = None) -> Image.Image:
        """Crop an image (None: the centre crop) and resize it bicubically to the format's size."""
        height, width = self.image_size
        return image.resize((width, height), Image.Resampling.BICUBIC, box=box or self.centre(image))

    def pixel_values(self, images: Sequence[Image.Image]) -> Tensor:
        """Convert images with the format's number of channels to model inputs (b, channels, height, width), float32."""
        return self.normalize(to_pixels([self.cut(image) for image in images]))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalise pixels (b, channels, height, width) from 0 to 255; returns float32."""
        mean, std = (255 * torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
        return pixels.to(torch.float32, memory_format=torch.contiguous_format, copy=True).sub_(mean).div_(std)


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Stack images of one size and mode to pixels (b, channels, height, width), uint8."""
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return pixels[:, None] if pixels.dim() == 3 else pixels.permute(0, 3, 1, 2)


@contextmanager
def seeded_generators(seed: int, epoch: int, index: int) -> Iterator[None]:
    """Seed the global random generators of random, numpy and torch within this context, then restore them.

    Libraries for augmentation draw from the global generators.

    Args:
        seed: Seed of the run.
        epoch: Epoch from 0, or -1.
        index: Index of an example in its data set.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = example_rng(seed, epoch, index).integers(2**32, size=3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])  # torch.manual_seed would seed GPUs too
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class Augmentation:
    """Random augmentation of training images, drawn from the global generators (:func:`seeded_generators`).

    Args:
        image_format: format of the model's inputs.
        num_classes: number of classes, for mixed labels.
        min_crop: smallest area of a random crop relative to the image, with an aspect ratio from 3:4 to 4:3; 1: the
            centre crop, as in evaluation.
        augment: timm's configuration of an automatic augmentation.
        hflip: probability of mirroring an image.
        random_shift: largest vertical and horizontal translation in pixels.
        random_rotation: largest rotation in degrees, in both directions.
        random_erasing: probability of erasing a rectangle of an image.
        mixup_alpha: parameter of the Beta distribution of mixup weights; 0: no mixup.
        cutmix_alpha: parameter of the Beta distribution of CutMix areas; 0: no CutMix.
    """

    def __init__(
        self,
        image_format: ImageFormat,
        num_classes: int,
        min_crop: float = 1.0,
        augment: str | None = None,
        hflip: float = 0.0,
        random_shift: int = 0,
        random_rotation: float = 0.0,
        random_erasing: float = 0.0,
        mixup_alpha: float = 0.0,
        cutmix_alpha: float = 0.0,
    ) -> None:
        self.image_format = image_format
        self.min_crop = min_crop
        self.augment = None if augment is None else timm_augmentation(augment, image_format)
        self.hflip = hflip
        self.random_shift = random_shift
        self.random_rotation = random_rotation
        self.erase = v2.RandomErasing(random_erasing) if random_erasing else None
        mixes = [
            mix(alpha=alpha, num_classes=num_classes)
            for mix, alpha in ((v2.MixUp, mixup_alpha), (v2.CutMix, cutmix_alpha))
            if alpha
        ]
        self.mix = v2.RandomChoice(mixes) if mixes else None

    @property
    def processes_single_images(self) -> bool:
        """True if images are augmented one by one, before they are collated to a batch."""
        return self.min_crop < 1 or self.augment is not None

    @property
    def any(self) -> bool:
        """True if any augmentation is enabled."""
        changes = (self.hflip, self.random_shift, self.random_rotation, self.erase, self.mix)
        return self.processes_single_images or any(changes)

    def cut(self, image: Image.Image) -> Image.Image:
        """Crop an image randomly, resize it to the format's size, and augment it."""
        box = None
        if self.min_crop < 1:
            top, left, height, width = RandomResizedCrop.get_params(image, [self.min_crop, 1.0], [3 / 4, 4 / 3])
            box = (left, top, left + width, top + height)
        image = self.image_format.cut(image, box)
        if self.augment is None:
            return image
        # timm's augmentations expect RGB.
        return self.augment(image.convert("RGB")).convert(image.mode)

    def batch(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            pixels: (b, channels, height, width), uint8.
            labels: (b,) int64.

        Returns:
            ``pixel_values`` (b, channels, height, width) float32, and the labels; (b, classes) float32 with mixup or
            CutMix.
        """
        if self.hflip:
            mirrored = torch.rand(len(pixels)) < self.hflip
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
        if self.random_shift or self.random_rotation:
            pixels = shift_and_rotate(pixels, self.random_shift, self.random_rotation)
        pixel_values = self.image_format.normalize(pixels)
        if self.erase is not None:
            pixel_values = torch.stack([self.erase(image) for image in pixel_values])
        return (pixel_values, labels) if self.mix is None else self.mix(pixel_values, labels)


def shift_and_rotate(pixels: Tensor, shift: int, rotation: float) -> Tensor:
    """Translate and rotate each image randomly, with bilinear interpolation and black borders.

    Args:
        pixels: (b, channels, height, width).
        shift: largest translation in whole pixels, vertically and horizontally.
        rotation: largest rotation in degrees, in both directions.

    Returns:
        The images, float32.
    """
    size, (height, width) = len(pixels), pixels.shape[2:]
    angle = torch.empty(size).uniform_(-rotation, rotation).deg2rad()
    down, right = torch.randint(-shift, shift + 1, (2, size))
    # Affine maps from output to input coordinates, both normalised to -1 ... 1.
    along_x = torch.stack([angle.cos(), angle.sin() * height / width, 2 * right / width], dim=-1)
    along_y = torch.stack([-angle.sin() * width / height, angle.cos(), 2 * down / height], dim=-1)
    grid = functional.affine_grid(torch.stack([along_x, along_y], dim=1), list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels.float(), grid, align_corners=False)


def timm_augmentation(config: str, image_format: ImageFormat) -> Callable[[Image.Image], Image.Image]:
    """Create timm's automatic augmentation from its configuration string.

    Args:
        config: ``rand-...`` (RandAugment), ``augmix-...`` (AugMix), or a policy of AutoAugment.
        image_format: format of the images.

    Raises:
        UserError: If the configuration is invalid.
    """
    mean = tuple(round(255 * value) for value in match_channels(image_format.mean, 3))
    options: dict[str, Any] = {"translate_const": int(0.45 * min(image_format.image_size)), "img_mean": mean}
    try:
        if config.startswith("rand"):
            return rand_augment_transform(config, options)
        if config.startswith("augmix"):
            return augment_and_mix_transform(config, options | {"translate_pct": 0.3})
        return auto_augment_transform(config, options)
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"augment={config!r} is not one of timm's augmentations ({error or type(error).__name__}); "
            "examples: rand-m9-mstd0.5, augmix-m3-w3, original-mstd0.5"
        ) from error


def match_channels(values: tuple[float, ...], num_channels: int) -> tuple[float, ...]:
    """Return one value per channel: ``values`` if there are ``num_channels``, otherwise their mean for each channel."""
    if len(values) == num_channels:
        return values
    return (sum(values) / len(values),) * num_channels
