"""Flow files in the Middlebury format, and pictures of flow.

A file is the tag "PIEH", width and height as 32-bit integers, then for each pixel, row by row, its motion to the right
and its motion down as 32-bit floating point numbers, all little-endian; a number above 1e9 means that the motion is
unknown. Source: https://vision.middlebury.edu/flow/code/flow-code/README.txt
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import flow_to_image

from perceiver_plugins.training.errors import DataError

TAG = b"PIEH"
HEADER = 12
UNKNOWN_ABOVE = 1e9
UNKNOWN = 1e10


def parse_flo(content: bytes, place: str) -> np.ndarray:
    """The flow in the bytes of a file.

    Args:
        content: the bytes.
        place: where they are from, for the message of an error.

    Returns:
        (h, w, 2), float32, to the right and down, in pixels; NaN where it is unknown.

    Raises:
        DataError: if these are not the bytes of a flow file.
    """
    if not content.startswith(TAG):
        raise DataError(f"{place}: not a flow file in the Middlebury format (.flo): it does not begin with 'PIEH'")
    width, height = np.frombuffer(content[len(TAG) : HEADER].ljust(8, b"\0"), "<i4").tolist()
    if width < 1 or height < 1 or len(content) != HEADER + 8 * width * height:
        raise DataError(
            f"{place}: a damaged flow file: {len(content)} bytes, where a flow of {width}x{height} pixels takes "
            f"{HEADER + 8 * width * height}"
        )
    flow = np.frombuffer(content, "<f4", offset=HEADER).reshape(height, width, 2).astype(np.float32)
    unknown = ~(np.abs(flow) <= UNKNOWN_ABOVE).all(axis=-1)  # NaN is unknown as well
    flow[unknown] = np.nan
    return flow


def read_flo(path: str | Path) -> np.ndarray:
    """The flow in a file, as :func:`parse_flo` returns it.

    Raises:
        DataError: if the file cannot be read, or is no flow file.
    """
    try:
        return parse_flo(Path(path).read_bytes(), str(path))
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
