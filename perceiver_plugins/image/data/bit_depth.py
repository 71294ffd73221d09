"""Bit depth of greyscale images of 16 bits: cameras and scanners often use 10, 12 or 14 of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from perceiver_plugins.image.data.decoding import MAX_BIT_DEPTH, deep_pixels, image_errors
from perceiver_plugins.image.data.sources import ImageHeader, LabelledImages
from perceiver_plugins.sdk.errors import DataError

DEPTHS = (8, 10, 12, 14, 16)

NEARLY_BLACK = 16
"""Upper 8 bits of the brightest pixel (0 to 255) below which images count as nearly black, such as values of 12 bits in
an image of 16 bits.
"""


def find_bit_depth(source: str, images: LabelledImages, headers: Iterable[ImageHeader]) -> int:
    """Return the bits that the brightest greyscale image of 16 bits needs. Report depths below 16 and dark colours.

    Args:
        source: name of the data set in messages.
        images: the images.
        headers: headers of the images to read.
    """
    grey, colour = [0], [0]
    deep = [header.item for header in headers if header.deep]
    for index in deep:
        brightest, is_grey = _brightest(images, index)
        (grey if is_grey else colour).append(brightest)
    if 0 < max(colour) < NEARLY_BLACK:
        rank_zero_info(
            f"{source}: nearly black: the upper 8 bits of 16-bit colours are read, and the brightest pixel of "
            f"{len(deep)} images is {max(colour)} of 255 (convert them to 8 bits)"
        )
    depth = next(depth for depth in DEPTHS if max(grey) < 2**depth)
    if max(grey) == 0 or depth == MAX_BIT_DEPTH:
        return MAX_BIT_DEPTH
    rank_zero_info(
        f"{source}: bit_depth={depth}: the brightest pixel of {len(deep)} images of 16 bits is {max(grey)}; values "
        f"from {2**depth - 1} on become white"
    )
    return depth


def _brightest(images: LabelledImages, index: int) -> tuple[int, bool]:
    """Return the highest pixel value of an image (0 if it cannot be read), and whether the image is greyscale."""
    number = int(images.numbers[index])
    try:
        with image_errors(images.store.location(number)), images.store.open(number) as image:
            is_grey = image.mode.startswith("I")
            pixels = deep_pixels(image) if is_grey else np.asarray(image)
            return int(pixels.max(initial=0)), is_grey
    except DataError:  # reported when it is read for training
        return 0, True
