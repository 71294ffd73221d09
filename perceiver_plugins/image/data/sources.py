"""Stores of images and splits of data sets."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only
from rich.console import Console
from rich.progress import track
from torch import Tensor

from perceiver_plugins.image.data.decoding import GREY_MODES, MAX_BIT_DEPTH, decode, image_errors, is_deep
from perceiver_plugins.sdk.data.splits import stratified_split
from perceiver_plugins.sdk.errors import DataError


class ImageStore(ABC):
    """Base class of stores of images, by number."""

    hint = ""
    """Advice to append to messages about images that cannot be read."""

    @abstractmethod
    def open(self, number: int) -> Image.Image:
        """Open an image and read its header."""

    @abstractmethod
    def location(self, number: int) -> str:
        """Return the name of an image for messages."""


class ArrayStore(ImageStore):
    """Images of one size, in memory.

    Args:
        pixels: (images, channels, height, width), uint8, of 1 or 3 channels.
        name: name of the images in messages.
    """

    def __init__(self, pixels: Tensor, name: str) -> None:
        self.pixels = pixels
        self.name = name

    def open(self, number: int) -> Image.Image:
        pixels = self.pixels[number]
        return Image.fromarray((pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy())

    def location(self, number: int) -> str:
        return f"{self.name}, image {number}"


class ImageHeader(NamedTuple):
    """Properties of an image, read from its header.

    Attributes:
        item: index of the image in its split.
        height: in pixels.
        width: in pixels.
        grey: whether it is greyscale.
        deep: whether it has more than 8 bits a channel.
        animated: whether it has more than one frame or page.
    """

    item: int
    height: int
    width: int
    grey: bool
    deep: bool
    animated: bool


@dataclass(frozen=True)
class LabelledImages:
    """The images of a split.

    Args:
        store: the store of the images.
        numbers: (n,) int64, the images' numbers in the store.
        labels: (n,) int64, the images' classes, or (n, classes) float32, 0, 1, or NaN where unknown.
    """

    store: ImageStore
    numbers: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int, num_channels: int, bit_depth: int = MAX_BIT_DEPTH) -> Image.Image:
        """Read an image of the split with :func:`~perceiver_plugins.image.data.decoding.decode`.

        Raises:
            DataError: If it cannot be read.
        """
        number = int(self.numbers[index])
        with image_errors(self.store.location(number), self.store.hint):
            return decode(self.store.open(number), num_channels, bit_depth)

    def select(self, indices: Iterable[int] | np.ndarray) -> LabelledImages:
        """Select images by their indices."""
        chosen = torch.as_tensor(np.asarray(indices), dtype=torch.int64)
        return LabelledImages(self.store, self.numbers[chosen], self.labels[chosen])

    def headers(self, limit: int = 100) -> list[ImageHeader]:
        """Read the headers of evenly spaced images. Images that cannot be read are left out."""
        found = []
        for index in np.linspace(0, len(self) - 1, min(limit, len(self)), dtype=int).tolist():
            number = int(self.numbers[index])
            try:
                with image_errors(self.store.location(number)), self.store.open(number) as image:
                    animated = getattr(image, "is_animated", False)
                    size = image.height, image.width
                    found.append(ImageHeader(index, *size, image.mode in GREY_MODES, is_deep(image), animated))
            except DataError:
                continue
        return found


@dataclass(frozen=True)
class ImageSplits:
    """Splits of a data set.

    Args:
        label_names: names of the classes, by label.
        images: the images of "train" and, if they exist, "validation" and "test".
    """

    label_names: list[str]
    images: dict[str, LabelledImages]


def split_for_validation(images: LabelledImages, val_fraction: float) -> dict[str, LabelledImages]:
    """Split images into training and validation data, stratified by class unless they are multi-label."""
    classes = images.labels if images.labels.dim() == 1 else torch.zeros(len(images))
    train, validation = stratified_split(classes, val_fraction)
    return {"train": images.select(train), "validation": images.select(validation)}


def remove_unreadable(name: str, splits: ImageSplits, num_channels: int) -> ImageSplits:
    """Read each image once and leave out those that cannot be read. Their number is reported.

    Args:
        name: name of the data set in messages.
        splits: the splits of the data set.
        num_channels: channels to decode.
    """
    total = sum(map(len, splits.images.values()))
    unreadable: list[str] = []

    def readable(images: LabelledImages, index: int) -> bool:
        try:
            images.read(index, num_channels)
        except DataError as error:
            unreadable.append(str(error).removesuffix(images.store.hint))
            return False
        return True

    kept = {}
    for split, images in splits.images.items():
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            found = threads.map(lambda index, images=images: readable(images, index), range(len(images)))
            console = Console(stderr=True)
            quiet = not console.is_terminal or getattr(rank_zero_only, "rank", 0) != 0
            checked = track(found, f"Checking {split} images", len(images), console=console, disable=quiet)
            kept[split] = images.select(np.flatnonzero(list(checked)))
    if unreadable:
        rank_zero_info(f"{name}: {len(unreadable)} of {total} images are left out: {min(unreadable)}")
    return ImageSplits(splits.label_names, kept)
