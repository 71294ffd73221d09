"""Data modules of optical flow. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.flow.data.folders": ("FlyingChairsDataModule", "KittiDataModule", "SintelDataModule"),
    "perceiver_plugins.flow.data.module": ("FlowDataModule",),
    "perceiver_plugins.flow.data.stereo": ("StereoPairDataModule",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
