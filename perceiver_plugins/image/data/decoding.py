"""From encoded images of any kind to pixels of 8 bits, grey or in colour."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from perceiver_plugins.training.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
"""What names of image files end in."""

FORMATS = ("BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow calls the formats that images may be in, whatever they are named. Of all that it knows, EPS is a program,
which it has Ghostscript run.
"""

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of the mode of images with so many channels."""


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """Opens an image, of which nothing but the beginning is read.

    Raises:
        Exception: of any kind, if it is no image of one of :data:`FORMATS`.
    """
    return Image.open(source, formats=FORMATS)


def decode(image: Image.Image, num_channels: int) -> Image.Image:
    """Reads an image's pixels, upright, as 1 (grey) or 3 (red, green, blue) channels of 8 bits.

    Colours become grey as ITU-R 601-2 weighs them. Of 16 bits, the upper 8 are kept. Transparency is left out.

    Args:
        image: what :func:`open_image` returned; it is closed.
        num_channels: 1 or 3.

    Raises:
        Exception: of any kind, if the image is damaged.
    """
    with image:
        # The pixels of a photograph lie as the camera was held; its EXIF data say how.
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            raise ValueError("its pixels are floating point numbers, of which nobody knows the range")
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
        elif image.mode == "P" and "transparency" in image.info:
            image = image.convert("RGBA")  # Pillow warns of any other conversion
        return image.convert(MODES[num_channels])


@contextmanager
def naming(place: str, hint: str = "") -> Iterator[None]:
    """Makes of any error that reading an image may end in a DataError.

    Args:
        place: where the image is from.
        hint: what could be done about it.
    """
    try:
        yield
    except UnidentifiedImageError as error:
        raise DataError(f"{place}: not an image, or one of an unknown format{hint}") from error
    except Exception as error:  # damaged files fail in any way
        reason = (error.strerror if isinstance(error, OSError) else None) or error or type(error).__name__
        raise DataError(f"{place}: the image cannot be read ({' '.join(str(reason).split())}){hint}") from error
