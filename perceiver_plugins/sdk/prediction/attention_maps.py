"""Pictures of attention maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perceiver_registry.escaping import escape_line


def draw_attention_maps(
    picture: np.ndarray, title: str, maps: Sequence[np.ndarray], path: Path, aspect: float | None = None
) -> Path:
    """Draw a picture of the input, and over it the attention map of each cross-attention layer.

    Args:
        picture: (height, width, 3) uint8, or (height, width).
        title: title of the input.
        maps: (rows, columns) for each layer, stretched over the picture.
        path: path of the file without suffix.
        aspect: height of a panel relative to its width. None: that of the picture.

    Returns:
        Path of the PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # optional
    from matplotlib.figure import Figure

    aspect = picture.shape[0] / picture.shape[1] if aspect is None else aspect
    num_columns = math.ceil(math.sqrt(len(maps) + 1))
    num_rows = math.ceil((len(maps) + 1) / num_columns)
    figure = Figure(figsize=(3 * num_columns, (3 * aspect + 0.3) * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    extent = (0.0, 1.0, aspect, 0.0)
    for index, axis in enumerate(axes):
        axis.set_axis_off()
        if index > len(maps):
            continue
        axis.imshow(picture, extent=extent, cmap="gray")
        axis.set_title(f"cross-attention layer {index}" if index else escape_line(title), fontsize=9, parse_math=False)
        if index > 0:
            axis.imshow(maps[index - 1], extent=extent, cmap="inferno", alpha=0.6, interpolation="bilinear", vmin=0)
    FigureCanvasAgg(figure)  # renders without a display
    file = Path(f"{path}.png")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)
    return file
