"""Images: their adapters and their data. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

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
    "perceiver_plugins.huggingface.image": ("convert_config",),
    "perceiver_plugins.image.reading": ("ImageReader",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
