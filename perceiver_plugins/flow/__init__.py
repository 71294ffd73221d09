"""Optical flow: the motion between two frames. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.flow.adapters": ("FlowPatchesInputAdapter", "OpticalFlowOutputAdapter", "extract_patches"),
    "perceiver_plugins.flow.config": ("FlowPatchesEncoderConfig", "OpticalFlowDecoderConfig"),
    "perceiver_plugins.flow.data": (
        "FlowDataModule",
        "FlyingChairsDataModule",
        "SintelDataModule",
        "StereoPairDataModule",
    ),
    "perceiver_plugins.flow.files": ("read_flo", "write_flo"),
    "perceiver_plugins.huggingface.flow": ("OPTICAL_FLOW", "convert_config", "patched_inputs"),
    "perceiver_plugins.flow.lightning": ("LitOpticalFlow",),
    "perceiver_plugins.flow.parts": ("flow_of_frames",),
    "perceiver_plugins.flow.prediction": ("FlowPredictor",),
    "perceiver_plugins.flow.reading": ("FrameReader",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
