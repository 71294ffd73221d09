"""Data module of a stereo pair: flow from disparity."""

from __future__ import annotations

from typing import Any

import numpy as np

from perceiver_plugins.flow.data.module import FlowDataModule
from perceiver_plugins.flow.data.pairs import FlowPair, PairStore, crop_pair
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.errors import DataError, one_line
from perceiver_registry.errors import surface_own_fault


class StereoPairDataModule(FlowDataModule):
    """scikit-image's stereo photographs of a motorcycle, 741x500 pixels, with the true disparity.

    A disparity of d pixels is a flow of (-d, 0) from the left to the right photograph. The right part of the
    photographs is used for validation. They are from the Middlebury data set of 2014 (Scharstein et al.,
    "High-resolution stereo datasets with subpixel-accurate ground truth").

    Args:
        val_fraction: Fraction of the photographs' width, from the right edge, that is used for validation.
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
            "train": _SinglePair(crop_pair(pair, 0, 0, (height, border))),
            "validation": _SinglePair(crop_pair(pair, 0, border, (height, width - border))),
        }


def load_stereo_pair() -> FlowPair:
    """Load the photographs and the flow between them, NaN where the disparity is unknown.

    Raises:
        ModuleNotFoundError: if scikit-image is not installed.
        DataError: if the photographs cannot be loaded.
    """
    try:
        from skimage.data import stereo_motorcycle

        left, right, disparity = stereo_motorcycle()
    except ModuleNotFoundError:  # an optional dependency
        raise
    except Exception as error:  # a failed download of missing files raises any type
        surface_own_fault(error)
        raise DataError(
            f"data=stereo-pair: scikit-image's photographs cannot be loaded ({one_line(error)}); install them with pip "
            "install 'scikit-image>=0.24'"
        ) from error
    flow = np.stack([-disparity, np.zeros_like(disparity)], axis=-1).astype(np.float32)
    flow[~np.isfinite(disparity)] = np.nan
    return FlowPair(left, right, flow)


class _SinglePair(PairStore):
    def __init__(self, pair: FlowPair) -> None:
        self.pair = pair

    def __len__(self) -> int:
        return 1

    def read(self, number: int) -> FlowPair:
        return self.pair

    def location(self, number: int) -> str:
        return "scikit-image's stereo pair"

    def size(self, number: int) -> tuple[int, int]:
        return self.pair.size
