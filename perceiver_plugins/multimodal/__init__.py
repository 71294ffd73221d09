"""Clips: video with audio and a label, their adapters and their data. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.multimodal.adapters": (
        "AudioPatchesInputAdapter",
        "AudioVideoLabelInputAdapter",
        "LabelInputAdapter",
        "VideoPatchesInputAdapter",
        "space_to_depth",
    ),
    "perceiver_plugins.multimodal.config": (
        "AudioPatchesEncoderConfig",
        "AudioVideoLabelDecoderConfig",
        "AudioVideoLabelEncoderConfig",
        "VideoPatchesEncoderConfig",
    ),
    "perceiver_plugins.multimodal.data": ("ClipDataModule", "SyntheticClipsDataModule", "VideoFolderDataModule"),
    "perceiver_plugins.multimodal.decoding": ("Reconstruction", "decode", "reconstruct"),
    "perceiver_plugins.huggingface.multimodal": ("MULTIMODAL", "convert_config"),
    "perceiver_plugins.multimodal.lightning": ("LitMultimodalAutoencoder",),
    "perceiver_plugins.multimodal.output": ("AudioVideoLabelOutputAdapter",),
    "perceiver_plugins.multimodal.reading": ("ClipReader",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
