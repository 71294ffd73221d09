"""Images: their adapters and their data. What is exported is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "perceiver_plugins.image.adapters": (
        "ImageConvInputAdapter",
        "ImageInputAdapter",
        "ImageLearnedInputAdapter",
        "ImagePatchesInputAdapter",
        "ImagePixelsInputAdapter",
        "ImageTimmInputAdapter",
    ),
    "perceiver_plugins.image.config": (
        "ImageConvEncoderConfig",
        "ImageLearnedEncoderConfig",
        "ImagePatchesEncoderConfig",
        "ImagePixelsEncoderConfig",
        "ImageTimmEncoderConfig",
    ),
    "perceiver_plugins.image.data": (
        "CIFAR10DataModule",
        "DigitsDataModule",
        "FashionMNISTDataModule",
        "HubImagesDataModule",
        "ImageDataModule",
        "ImageFolderDataModule",
        "ImageNetDataModule",
        "MNISTDataModule",
    ),
    "perceiver_plugins.image.huggingface": ("convert_config",),
    "perceiver_plugins.image.reading": ("ImageReader",),
}
_PLACES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    # The plugin's specs live in this package, and listing them must not import torch.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
