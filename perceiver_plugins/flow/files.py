"""Flow files in the formats of Middlebury and KITTI, and pictures of flow.

A file of Middlebury (.flo) is the tag "PIEH", width and height as 32-bit integers, then for each pixel, row by row, its
motion to the right and its motion down as 32-bit floating point numbers, all little-endian; a number above 1e9 means
that the motion is unknown. Source: https://vision.middlebury.edu/flow/code/flow-code/README.txt

A file of KITTI is a PNG of three channels of 16 bits: the motion to the right and down, each times 64 plus 2^15, and
whether it is known. Source: the readme of the development kit, https://www.cvlibs.net/datasets/kitti
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

from perceiver_plugins.image.data.decoding import naming, open_image
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
"""Steps of a pixel in files of KITTI."""


def parse_flo(content: bytes, location: str) -> np.ndarray:
    """The flow in the bytes of a file.

    Args:
        content: the bytes.
        location: where they are from, for the message of an error.

    Returns:
        (h, w, 2), float32, to the right and down, in pixels; NaN where it is unknown.

    Raises:
        DataError: if these are not the bytes of a flow file.
    """
    if not content.startswith(TAG):
        raise DataError(f"{location}: not a flow file in the Middlebury format (.flo): it does not begin with 'PIEH'")
    width, height = np.frombuffer(content[len(TAG) : HEADER].ljust(8, b"\0"), "<i4").tolist()
    if width < 1 or height < 1 or len(content) != HEADER + 8 * width * height:
        raise DataError(
            f"{location}: a damaged flow file: {len(content)} bytes, where a flow of {width}x{height} pixels takes "
            f"{HEADER + 8 * width * height}"
        )
    flow = np.frombuffer(content, "<f4", offset=HEADER).reshape(height, width, 2).astype(np.float32)
    unknown = ~(np.abs(flow) <= UNKNOWN_ABOVE).all(axis=-1)  # NaN is unknown as well
    flow[unknown] = np.nan
    return flow


def parse_kitti(content: bytes, location: str) -> np.ndarray:
    """The flow in the bytes of a PNG of KITTI, as :func:`parse_flo` returns it.

    Raises:
        DataError: if these are not the bytes of such a file.
    """
    with naming(location):
        open_image(io.BytesIO(content)).close()  # refuses what claims to be huge
        # Pillow keeps the upper 8 bits alone.
        values = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)
    if values.dtype != torch.uint16 or values.shape[0] != 3:
        raise DataError(
            f"{location}: not a flow file of KITTI: a PNG of 3 channels of 16 bits is needed, this one has "
            f"{values.shape[0]} of {8 * values.element_size()} bits"
        )
    right, down, known = values.numpy().astype(np.float32)
    flow = (np.stack([right, down], axis=-1) - KITTI_ZERO) / KITTI_STEPS
    flow[known == 0] = np.nan
    return flow


def parse_flow(content: bytes, location: str) -> np.ndarray:
    """The flow in the bytes of a file of either format, as :func:`parse_flo` returns it.

    Raises:
        DataError: if these are not the bytes of a flow file.
    """
    return (parse_kitti if content.startswith(PNG_TAG) else parse_flo)(content, location)


def read_flow(path: str | Path) -> np.ndarray:
    """The flow in a file of either format, as :func:`parse_flo` returns it.

    Raises:
        DataError: if the file cannot be read, or is no flow file.
    """
    try:
        return parse_flow(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def write_flo(path: str | Path, flow: np.ndarray) -> None:
    """Writes a flow (h, w, 2), in which NaN stands for what is unknown, to a file.

    Raises:
        ValueError: if the flow has another shape.
    """
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"a flow of shape {flow.shape}: must be (height, width, 2)")
    height, width = flow.shape[:2]
    known = np.where(np.isfinite(flow).all(axis=-1, keepdims=True), flow, UNKNOWN)
    Path(path).write_bytes(TAG + np.array([width, height], "<i4").tobytes() + known.astype("<f4").tobytes())


def draw_flow(flow: Tensor) -> Image.Image:
    """Flow (2, h, w) as colours: the hue is the direction, the saturation the length relative to the longest.

    The colour wheel is that of Baker et al., "A Database and Evaluation Methodology for Optical Flow".
    """
    pixels = flow_to_image(torch.nan_to_num(flow.detach().cpu().float()))
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())
