"""How many of the 16 bits of deep images are used: cameras and scanners often fill 10, 12 or 14."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from perceiver_plugins.image.data.decoding import MAX_BIT_DEPTH, deep_pixels, naming
from perceiver_plugins.image.data.sources import ImageHeader, LabelledImages
from perceiver_plugins.sdk.errors import DataError

DEPTHS = (8, 10, 12, 14, 16)

NEARLY_BLACK = 16
"""Of 255. Values of 12 bits in an image of 16 are below."""


def find_bit_depth(source: str, images: LabelledImages, headers: Iterable[ImageHeader]) -> int:
    """The bits that the brightest of the grey images of 16 bits needs. Reports what is unusual.

    Args:
        source: what to call the data set.
        images: the images.
        headers: those of the images to look at.
    """
    grey, colour = [0], [0]
    deep = [header.item for header in headers if header.deep]
    for index in deep:
        brightest, is_grey = _brightest(images, index)
        (grey if is_grey else colour).append(brightest)
    if 0 < max(colour) < NEARLY_BLACK:
        rank_zero_info(
            f"{source}: nearly black: of 16-bit colours the upper 8 bits are read, and of {len(deep)} images no pixel "
            f"is above {max(colour)} of 255 (convert them to 8 bits)"
        )
    depth = next(depth for depth in DEPTHS if max(grey) < 2**depth)
    if max(grey) == 0 or depth == MAX_BIT_DEPTH:
        return MAX_BIT_DEPTH
    rank_zero_info(
        f"{source}: bit_depth={depth}: the brightest pixel of {len(deep)} images of 16 bits is {max(grey)}, so that "
        f"values from {2**depth - 1} on are white"
    )
    return depth


def _brightest(images: LabelledImages, index: int) -> tuple[int, bool]:
    """The highest value of an image, and whether it is a grey one; 0 if it cannot be read."""
    number = int(images.numbers[index])
    try:
        with naming(images.store.place(number)), images.store.open(number) as image:
            is_grey = image.mode.startswith("I")
            pixels = deep_pixels(image) if is_grey else np.asarray(image)
            return int(pixels.max(initial=0)), is_grey
    except DataError:  # reported when it is read for training
        return 0, True
