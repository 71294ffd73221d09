"""Decoding of image files to 8-bit greyscale or RGB. No other module opens image files."""

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
"""Suffixes of image files."""

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are read, whatever the file's suffix. EPS is excluded: it is a program, which
Ghostscript would run.
"""

MODES = {1: "L", 3: "RGB"}
"""Pillow's modes by number of channels."""

TRANSPARENT_MODES = ("RGBA", "LA", "PA", "RGBa", "La")

GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of greyscale images."""

IN_MEMORY = (Image.Image, np.ndarray)
"""Types of images in memory."""

MAX_PIXELS = 178_956_970
"""Largest number of pixels of an image: Pillow's default limit, which other libraries disable."""

MAX_BIT_DEPTH = 16

IMAGE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, ArithmeticError, RuntimeError, MemoryError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""Errors that Pillow raises for damaged images. Any other error is a bug."""


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """Open an image and read its header.

    Raises:
        Exception: one of :data:`IMAGE_ERRORS`, if it is not an image in one of :data:`FORMATS`, or too large.
    """
    image = Image.open(source, formats=_known_formats())
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise ValueError(f"it has {image.width}x{image.height} pixels, more than {MAX_PIXELS:,}")
    return image


@cache
def _known_formats() -> tuple[str, ...]:
    """Return those of :data:`FORMATS` that the installed Pillow supports (AVIF needs version 11.3)."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def copy_image(value: Image.Image | np.ndarray, name: str) -> Image.Image:
    """Copy an image in memory to the image that :func:`open_image` opens from its file.

    Args:
        value: Pillow image, or array (height, width[, channels]): uint8 with 1, 3 or 4 channels, or greyscale of
            uint16.
        name: name of the image.

    Raises:
        DataError: if it is an array of another shape or type, or an image that cannot be decoded.
    """
    if isinstance(value, Image.Image):
        with image_errors(name):
            return ImageOps.exif_transpose(value)
    pixels = value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value
    is_image = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))
    if not is_image or 0 in pixels.shape:
        raise DataError(
            f"{name}: an image must be an array (height, width) or (height, width, channels) with 1, 3 or 4 channels, "
            f"got {value.shape} (pass a single image in a list: [image])"
        )
    if pixels.dtype != np.uint8 and (pixels.dtype != np.uint16 or pixels.ndim == 3):
        raise DataError(
            f"{name}: pixels must be uint8 from 0 to 255, or uint16 of a greyscale image, got {pixels.dtype} (convert "
            "them)"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))


def is_deep(image: Image.Image) -> bool:
    """Check whether the file of an opened image has more than 8 bits per channel."""
    return image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def decode(image: Image.Image, num_channels: int, bit_depth: int = MAX_BIT_DEPTH) -> Image.Image:
    """Decode an image to 1 (greyscale) or 3 (RGB) channels of 8 bits, rotated upright by its EXIF orientation.

    Colours are converted to greyscale with the weights of ITU-R 601-2. Transparent images are composed on white. The
    first frame of an animation, or the first page of a document, is read.

    Args:
        image: image of :func:`open_image`, which is closed.
        num_channels: 1 or 3.
        bit_depth: bits of greyscale images of 16 bits that are used; the upper 8 of these are kept.

    Raises:
        Exception: one of :data:`IMAGE_ERRORS`, if the image is damaged.
    """
    with image:
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            raise ValueError("its pixels are floating point numbers, whose range is unknown")
        if image.mode.startswith("I"):
            image = Image.fromarray((deep_pixels(image).clip(0, 2**bit_depth - 1) >> (bit_depth - 8)).astype(np.uint8))
        elif image.mode in TRANSPARENT_MODES or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert(MODES[num_channels])


def deep_pixels(image: Image.Image) -> np.ndarray:
    """Return the pixels (height, width) of a greyscale image of 16 bits, as int64.

    Raises:
        ValueError: if they have more bits, or are negative.
    """
    pixels = np.asarray(image).astype(np.int64)
    if pixels.size and not (pixels.min() >= 0 and pixels.max() < 2**MAX_BIT_DEPTH):
        raise ValueError(f"its pixels are from {pixels.min()} to {pixels.max()}, outside of 16 bits")
    return pixels


@contextmanager
def image_errors(location: str, hint: str = "") -> Iterator[None]:
    """Convert errors of reading an image to DataErrors that name the image.

    Args:
        location: file, row or index of the image.
        hint: advice to append to the message.
    """
    try:
        yield
    except DataError as error:  # raised by an archive
        raise DataError(f"{error}{hint}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{location}: not an image, or of an unknown format{hint}") from error
    except IMAGE_ERRORS as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error or type(error).__name__
        raise DataError(f"{location}: the image cannot be read ({' '.join(str(reason).split())}){hint}") from error
