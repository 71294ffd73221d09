"""Two photographs of one scene from two sides: what is nearer moves more, and all of it to the left."""

from __future__ import annotations

from typing import Any

import numpy as np

from perceiver_plugins.flow.data.module import FlowDataModule
from perceiver_plugins.flow.data.pairs import FlowPair, PairStore, crop_pair
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.errors import DataError, one_line
from perceiver_registry.errors import surface_own_fault


class StereoPairDataModule(FlowDataModule):
    """scikit-image's photographs of a motorcycle, 741x500 pixels, with the true disparity, which comes with the
    package.

    A pixel of the left photograph with disparity d is d pixels further left in the right one, a flow of (-d, 0). The
    right part of the photographs is set aside for validation. They are from the Middlebury data set of 2014 (Scharstein
    et al., "High-resolution stereo datasets with subpixel-accurate ground truth").

    Args:
        val_fraction: Part of the photographs' width, at the right, that is set aside for validation.
    """

    def __init__(self, val_fraction: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.val_fraction = val_fraction

    def load(self) -> dict[str, PairStore]:
        pair = load_stereo_pair()
        height, width = pair.size
        border = round(width * (1 - self.val_fraction))
        return {
            "train": _OnePair(crop_pair(pair, 0, 0, (height, border))),
            "validation": _OnePair(crop_pair(pair, 0, border, (height, width - border))),
        }


def load_stereo_pair() -> FlowPair:
    """The two photographs and the flow between them, NaN where the disparity is unknown.

    Raises:
        DataError: if scikit-image, or its copy of the photographs, is not there.
    """
    try:
        from skimage.data import stereo_motorcycle

        left, right, disparity = stereo_motorcycle()
    except Exception as error:  # it tries to download what it lacks, which fails in any way
        surface_own_fault(error)
        raise DataError(
            f"data=stereo-pair: scikit-image's photographs cannot be loaded ({one_line(error)}); pip install "
            "'scikit-image>=0.24' brings them along"
        ) from error
    flow = np.stack([-disparity, np.zeros_like(disparity)], axis=-1).astype(np.float32)
    flow[~np.isfinite(disparity)] = np.nan
    return FlowPair(left, right, flow)


class _OnePair(PairStore):
    def __init__(self, pair: FlowPair) -> None:
        self.pair = pair

    def __len__(self) -> int:
        return 1

    def read(self, number: int) -> FlowPair:
        return self.pair

    def place(self, number: int) -> str:
        return "scikit-image's stereo pair"

    def size(self, number: int) -> tuple[int, int]:
        return self.pair.size
