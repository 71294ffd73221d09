"""Data modules of images. What is exported is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "perceiver_plugins.image.data.arrays": (
        "CIFAR10DataModule",
        "DigitsDataModule",
        "FashionMNISTDataModule",
        "MNISTDataModule",
    ),
    "perceiver_plugins.image.data.folders": ("ImageFolderDataModule",),
    "perceiver_plugins.image.data.hub": ("HubImagesDataModule", "ImageNetDataModule"),
    "perceiver_plugins.image.data.module": ("ImageDataModule",),
}
_PLACES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    # Only the hub's data sets need its libraries, which take a while to import.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
