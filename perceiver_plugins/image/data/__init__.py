"""Data modules of images. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

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

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
