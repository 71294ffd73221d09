"""From encoded images of any kind to pixels of 8 bits, grey or in colour. The only module that opens image files."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from perceiver_plugins.sdk.errors import DataError

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif"),
)
"""What names of image files end in."""

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow calls the formats that images may be in, whatever they are named. Of all that it knows, EPS is a program,
which it has Ghostscript run.
"""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of the mode of images with so many channels."""

TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")

MAX_PIXELS = 178_956_970
"""Pixels that an image may have: Pillow's own limit, which other libraries switch off."""

MAX_BIT_DEPTH = 16

IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, RuntimeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""Errors of Pillow on damaged images. Others are faults of this code."""


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """Opens an image, of which nothing but the beginning is read.

    Raises:
        Exception: one of :data:`IMAGE_ERRORS`, if it is not an image of one of :data:`FORMATS`, or too large.
    """
    image = Image.open(source, formats=_known_formats())
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"it has {image.width}x{image.height} pixels; at most {MAX_PIXELS:,} are read")
    return image


@cache
def _known_formats() -> tuple[str, ...]:
    """Those of :data:`FORMATS` that the installed Pillow reads: AVIF needs version 11.3."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def is_deep(image: Image.Image) -> bool:
    """Whether the file of an opened image has more than 8 bits a channel."""
    return image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def decode(image: Image.Image, num_channels: int, bit_depth: int = MAX_BIT_DEPTH) -> Image.Image:
    """Reads an image's pixels, upright, as 1 (grey) or 3 (red, green, blue) channels of 8 bits.

    Colours become grey as ITU-R 601-2 weighs them. What is transparent is laid on white. Of an animation or a document
    of several pages, the first is read.

    Args:
        image: what :func:`open_image` returned; it is closed.
        num_channels: 1 or 3.
        bit_depth: so many bits of grey images of 16 bits are used, of which the upper 8 are kept.

    Raises:
        Exception: one of :data:`IMAGE_ERRORS`, if the image is damaged.
    """
    with image:
        # The pixels of a photograph lie as the camera was held; its EXIF data say how.
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            raise ValueError("its pixels are floating point numbers, of which nobody knows the range")
        if image.mode.startswith("I"):
            image = Image.fromarray((deep_pixels(image).clip(0, 2**bit_depth - 1) >> (bit_depth - 8)).astype(np.uint8))
        elif image.mode in TRANSPARENT_MODES or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert(MODES[num_channels])


def deep_pixels(image: Image.Image) -> np.ndarray:
    """Pixels (height, width) of a grey image of 16 bits.

    Raises:
        ValueError: if they have more bits, or are negative.
    """
    pixels = np.asarray(image).astype(np.int64)
    if pixels.size and not (pixels.min() >= 0 and pixels.max() < 2**MAX_BIT_DEPTH):
        raise ValueError(f"its pixels are from {pixels.min()} to {pixels.max()}, beyond 16 bits")
    return pixels


@contextmanager
def naming(place: str, hint: str = "") -> Iterator[None]:
    """Turn errors of reading an image into DataErrors that name it.

    Args:
        place: where the image is from.
        hint: what could be done about it.
    """
    try:
        yield
    except DataError as error:  # of an archive
        raise DataError(f"{error}{hint}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{place}: not an image, or one of an unknown format{hint}") from error
    except IMAGE_ERRORS as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error or type(error).__name__
        raise DataError(f"{place}: the image cannot be read ({' '.join(str(reason).split())}){hint}") from error
