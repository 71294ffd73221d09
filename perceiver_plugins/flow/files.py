"""Flow files in the formats of Middlebury and KITTI, and visualisation of flow.

Middlebury (.flo): the tag "PIEH", width and height as 32-bit integers, then the flow to the right and down of each
pixel, row by row, as 32-bit floating point numbers, all little-endian. Numbers above 1e9 are unknown flow. Source:
https://vision.middlebury.edu/flow/code/flow-code/README.txt

KITTI: a PNG with three channels of 16 bits: the flow to the right and down, each times 64 plus 2^15, and a mask of
known flow. Source: the readme of the development kit, https://www.cvlibs.net/datasets/kitti
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_png
from torchvision.utils import flow_to_image

from perceiver_plugins.image.data.decoding import image_errors, open_image
from perceiver_plugins.sdk.errors import DataError

SUFFIXES = (".flo", ".png")
"""Suffixes of flow files."""

TAG = b"PIEH"
HEADER = 12
UNKNOWN_ABOVE = 1e9
UNKNOWN = 1e10

PNG_TAG = b"\x89PNG"
KITTI_ZERO = 2**15
KITTI_STEPS = 64
"""Units per pixel in KITTI files."""


def parse_flo(content: bytes, location: str) -> np.ndarray:
    """Parse a flow file in the Middlebury format.

    Args:
        content: content of the file.
        location: path of the file, for messages.

    Returns:
        (height, width, 2), float32, to the right and down, in pixels; NaN: unknown.

    Raises:
        DataError: if the content has another format or is damaged.
    """
    if not content.startswith(TAG):
        raise DataError(f"{location}: not a flow file in the Middlebury format (.flo): it does not begin with 'PIEH'")
    width, height = np.frombuffer(content[len(TAG) : HEADER].ljust(8, b"\0"), "<i4").tolist()
    if width < 1 or height < 1 or len(content) != HEADER + 8 * width * height:
        raise DataError(
            f"{location}: damaged flow file: {len(content)} bytes, expected {HEADER + 8 * width * height} for "
            f"{width}x{height} pixels"
        )
    flow = np.frombuffer(content, "<f4", offset=HEADER).reshape(height, width, 2).astype(np.float32)
    unknown = ~(np.abs(flow) <= UNKNOWN_ABOVE).all(axis=-1)  # NaN counts as unknown
    flow[unknown] = np.nan
    return flow


def parse_kitti(content: bytes, location: str) -> np.ndarray:
    """Parse a flow file in KITTI's format. Returns the same as :func:`parse_flo`.

    Raises:
        DataError: if the content has another format or is damaged.
    """
    with image_errors(location):
        open_image(io.BytesIO(content)).close()  # rejects images whose header claims too many pixels
        # Pillow would keep the upper 8 bits only.
        values = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)
    if values.dtype != torch.uint16 or values.shape[0] != 3:
        raise DataError(
            f"{location}: not a KITTI flow file: expected a PNG with 3 channels of 16 bits, got {values.shape[0]} of "
            f"{8 * values.element_size()} bits"
        )
    right, down, known = values.numpy().astype(np.float32)
    flow = (np.stack([right, down], axis=-1) - KITTI_ZERO) / KITTI_STEPS
    flow[known == 0] = np.nan
    return flow


def parse_flow(content: bytes, location: str) -> np.ndarray:
    """Parse a flow file in either format. Returns the same as :func:`parse_flo`.

    Raises:
        DataError: if the content has another format or is damaged.
    """
    return (parse_kitti if content.startswith(PNG_TAG) else parse_flo)(content, location)


def read_flow(path: str | Path) -> np.ndarray:
    """Read a flow file in either format. Returns the same as :func:`parse_flo`.

    Raises:
        DataError: if the file cannot be read, has another format or is damaged.
    """
    try:
        return parse_flow(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def write_flo(path: str | Path, flow: np.ndarray) -> None:
    """Write a flow (height, width, 2), with NaN for unknown flow, to a file in the Middlebury format.

    Raises:
        ValueError: if the flow has another shape.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"a flow of shape {flow.shape}: must be (height, width, 2)")
    height, width = flow.shape[:2]
    known = np.where(np.isfinite(flow).all(axis=-1, keepdims=True), flow, UNKNOWN)
    Path(path).write_bytes(TAG + np.array([width, height], "<i4").tobytes() + known.astype("<f4").tobytes())


def draw_flow(flow: Tensor) -> Image.Image:
    """Render a flow (2, height, width) as an image: direction as hue, length relative to the longest as saturation.

    The colour wheel is that of Baker et al., "A Database and Evaluation Methodology for Optical Flow".
    """
    pixels = flow_to_image(torch.nan_to_num(flow.detach().cpu().float()))
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
