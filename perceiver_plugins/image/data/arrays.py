"""Data modules of small images in memory: handwritten digits, MNIST, Fashion-MNIST, CIFAR-10."""

from __future__ import annotations

import contextlib
import gzip
import os
import zlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torchvision.datasets
from filelock import FileLock
from torch import Tensor

from perceiver_plugins.image.data.folders import existing_path
from perceiver_plugins.image.data.module import ImageDataModule
from perceiver_plugins.image.data.sources import ArrayStore, ImageSplits, LabelledImages
from perceiver_plugins.sdk.data.files import open_binary
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.data.splits import stratified_split
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import near


class DigitsDataModule(ImageDataModule):
    """Handwritten digits of scikit-learn: 1,797 greyscale images of 8x8 pixels (UCI, Alpaydin and Kaynak).

    Nothing is downloaded. The splits are fixed: 70 % of each class for training, 15 % for validation, 15 % for test.
    """

    default_num_channels = 1
    default_mean = (0.305,)
    default_std = (0.376,)

    @property
    def source(self) -> str:
        return "digits"

    def load(self) -> ImageSplits:
        from sklearn.datasets import load_digits  # takes a second

        digits = load_digits()
        # Pixels are counts from 0 to 16.
        pixels = torch.from_numpy(np.rint(digits.images * 255 / 16).astype(np.uint8))[:, None]
        images = in_memory(pixels, torch.from_numpy(digits.target).long(), self.source)
        parts = stratified_split(images.labels, 0.15, 0.15, round_sums=True)
        splits = {
            split: images.select(part) for split, part in zip(("train", "validation", "test"), parts, strict=True)
        }
        return ImageSplits([str(name) for name in digits.target_names], splits)


class DownloadedImagesDataModule(ImageDataModule):
    """Base class of data sets that torchvision downloads.

    Args:
        root: Folder with the data set's files; null: download them to $PERCEIVER_CACHE or ~/.cache/perceiver.
        val_size: Number of images at the end of the training data that are used for validation.
    """

    torchvision_class: ClassVar[type[torchvision.datasets.MNIST | torchvision.datasets.CIFAR10]]
    """torchvision's data set, which downloads the files."""

    def __init__(self, root: str | None = None, val_size: int = 10_000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_positive(val_size=val_size)
        self.root = None if root is None else existing_path(root, "root")
        self.val_size = val_size

    @property
    def source(self) -> str:
        return self.torchvision_class.__name__

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the classes."""

    @abstractmethod
    def read(self, folder: Path, train: bool) -> tuple[Tensor, Tensor] | None:
        """Read the training or test data from a folder.

        Returns:
            Pixels (n, channels, height, width), uint8, and labels (n,) int64; None if there is no test data.

        Raises:
            DataError: If files are missing or damaged.
        """

    def load(self) -> ImageSplits:
        folder = self.root or self._download()
        data = self.read(folder, train=True)
        assert data is not None
        images = in_memory(*data, f"{folder}")
        train_size = len(images) - self.val_size
        if train_size < 1:
            raise DataError(f"val_size={self.val_size} leaves no images for training (there are {len(images)})")
        splits = {
            "train": images.select(range(train_size)),
            "validation": images.select(range(train_size, len(images))),
        }
        if (test := self.read(folder, train=False)) is not None:
            splits["test"] = in_memory(*test, f"{folder}")
        return ImageSplits(self.classes, splits)

    def _download(self) -> Path:
        folder = Path(os.environ.get("PERCEIVER_CACHE") or "~/.cache/perceiver").expanduser() / "images" / self.source
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                self.torchvision_class(str(folder), download=True)
        except (OSError, RuntimeError) as error:
            raise DataError(
                f"{self.source} could not be downloaded to {folder} ({' '.join(str(error).split())}); set root to a "
                "folder with its files"
            ) from error
        return folder


class MNISTDataModule(DownloadedImagesDataModule):
    """MNIST: 70,000 greyscale images of handwritten digits, 28x28 pixels (LeCun, Cortes and Burges).

    The last 10,000 of the 60,000 training images are used for validation. Files have their original names
    (``train-images-idx3-ubyte``), with or without .gz; the test data is optional.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **ImageDataModule.missing_split,
        "test": "no test data: root has no file t10k-images-idx3-ubyte",
    }
    torchvision_class = torchvision.datasets.MNIST
    default_num_channels = 1
    default_mean = (0.1307,)
    default_std = (0.3081,)

    @property
    def classes(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def read(self, folder: Path, train: bool) -> tuple[Tensor, Tensor] | None:
        if (raw := folder / self.source / "raw").is_dir():  # torchvision's layout
            folder = raw
        prefix = "train" if train else "t10k"
        paths = [_idx_path(folder, f"{prefix}-{name}-ubyte") for name in ("images-idx3", "labels-idx1")]
        if not train and paths == [None, None]:
            return None
        images_path = _require_file(paths[0], folder, f"{prefix}-images-idx3-ubyte")
        labels_path = _require_file(paths[1], folder, f"{prefix}-labels-idx1-ubyte")
        pixels, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if len(pixels) != len(labels):
            raise DataError(f"{labels_path}: {len(labels)} labels for the {len(pixels)} images in {images_path.name}")
        if len(labels) and labels.max() >= len(self.classes):
            index = int(np.argmax(labels >= len(self.classes)))
            raise DataError(f"{labels_path}: the label of image {index} is {labels[index]}; it must be from 0 to 9")
        return torch.from_numpy(pixels)[:, None], torch.from_numpy(labels).long()


def _require_file(path: Path | None, folder: Path, name: str) -> Path:
    """Return a file's path, or raise DataError with similar names if it is missing."""
    if path is not None:
        return path
    names = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    hint = f" ({near(name, names)})" if 0 < len(names) <= 1000 else ""
    raise DataError(f"{folder}: {name} not found, with or without .gz{hint}")


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST: 70,000 greyscale images of clothes, 28x28 pixels (Xiao, Rasul and Vollgraf, arXiv 1708.07747).

    The last 10,000 of the 60,000 training images are used for validation. Files have the same names as MNIST's.
    """

    torchvision_class = torchvision.datasets.FashionMNIST
    default_mean = (0.2860,)
    default_std = (0.3530,)

    @property
    def classes(self) -> list[str]:
        return list(torchvision.datasets.FashionMNIST.classes)


class CIFAR10DataModule(DownloadedImagesDataModule):
    """CIFAR-10: 60,000 colour images of 10 classes, 32x32 pixels (Krizhevsky, 2009).

    The last 5,000 of the 50,000 training images are used for validation. Files are those of the "python version"
    (``data_batch_1``).

    Args:
        root: Folder with the data set's files, or with the folder ``cifar-10-batches-py``; null: download them to
            $PERCEIVER_CACHE or ~/.cache/perceiver.
        val_size: Number of images at the end of the training data that are used for validation.
    """

    torchvision_class = torchvision.datasets.CIFAR10
    augmented_by_default = True
    default_mean = (0.4914, 0.4822, 0.4465)
    default_std = (0.2470, 0.2435, 0.2616)

    def __init__(self, root: str | None = None, val_size: int = 5_000, **kwargs: Any) -> None:
        super().__init__(root, val_size, **kwargs)

    @property
    def classes(self) -> list[str]:
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def read(self, folder: Path, train: bool) -> tuple[Tensor, Tensor] | None:
        if (batches := folder / torchvision.datasets.CIFAR10.base_folder).is_dir():
            folder = batches
        try:
            data = _Batches(str(folder), train)
        except RuntimeError as error:
            names = ", ".join(name for name, _ in _Batches.train_list + _Batches.test_list)
            raise DataError(
                f"{folder}: files of CIFAR-10's python version ({names}, {_Batches.meta['filename']}) are missing or "
                "damaged (their checksums differ)"
            ) from error
        return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


class _Batches(torchvision.datasets.CIFAR10):
    base_folder = ""  # the files are in the folder itself


def in_memory(pixels: Tensor, labels: Tensor, name: str) -> LabelledImages:
    """Create labelled images from arrays.

    Args:
        pixels: (n, channels, height, width), uint8.
        labels: (n,) int64.
        name: name of the images in messages.
    """
    return LabelledImages(ArrayStore(pixels, name), torch.arange(len(pixels)), labels)


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an array of bytes in MNIST's format (http://yann.lecun.com/exdb/mnist).

    Args:
        path: The file, compressed (.gz) or not.
        dimensions: Expected number of dimensions.

    Raises:
        DataError: If the file is damaged or has another format.
    """
    try:
        with open_binary(path) as file:
            data = file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed data is damaged or truncated ({error})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    start = 4 + 4 * dimensions
    # Header: two zero bytes, the type (8: unsigned bytes), the number of dimensions, then their sizes in 32 bits each.
    if len(data) < start or data[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(f"{path}: not an idx file of bytes in {dimensions} dimensions")
    shape = np.frombuffer(data, ">u4", dimensions, offset=4).astype(int)
    if len(data) != start + shape.prod():
        raise DataError(f"{path}: damaged: {len(data) - start} bytes, expected {'x'.join(map(str, shape))}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()
