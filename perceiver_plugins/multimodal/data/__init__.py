"""Data modules of clips. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.multimodal.data.files": ("read_clip", "write_clip"),
    "perceiver_plugins.multimodal.data.folders": ("VideoFolderDataModule",),
    "perceiver_plugins.multimodal.data.format": ("Clip", "ClipFormat"),
    "perceiver_plugins.multimodal.data.module": ("ClipDataModule",),
    "perceiver_plugins.multimodal.data.synthetic": ("SyntheticClipsDataModule",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
