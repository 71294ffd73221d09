"""Images in a folder per class, or in a zip archive of such folders."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from perceiver_plugins.image.data.decoding import SUFFIXES, open_image
from perceiver_plugins.image.data.module import ImageDataModule
from perceiver_plugins.image.data.sources import ImageSplits, ImageStore, LabelledImages, split_for_validation
from perceiver_plugins.sdk.data.class_folders import find_class_folders
from perceiver_plugins.sdk.data.file_trees import FileTree, FolderTree, open_tree
from perceiver_plugins.sdk.data.missing_files import missing
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.data.tree_files import require_files
from perceiver_plugins.sdk.errors import DataError

SKIP_HINT = "; skip_unreadable=true leaves such images out"


class ImageFolderDataModule(ImageDataModule):
    """Your own images: a folder with a folder for each class, or a zip archive of such a folder.

    The names of the folders are the names of the classes. Optional folders ``train``, ``val`` (or ``valid``,
    ``validation``) and ``test`` contain the folders of the classes of each split. Without a folder for validation, a
    fixed part of each class is used.

    Images are selected by suffix (.jpg, .jfif, .png, .webp, .avif, .gif, .bmp, .tiff, .jp2 and similar), at any depth
    below the folder of their class. Hidden and system files are ignored. Other files, and links to folders that are
    read anyway, are counted and reported.

    Args:
        path: The folder, or the zip archive, which is not extracted.
        val_fraction: Fraction of the training images for validation if there is no folder for it.
        skip_unreadable: Leave out images that cannot be read, instead of ending with an error. All images are read
            once before training to find them.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **ImageDataModule.missing_split,
        "test": "no test data: no folder 'test' with a folder for each class",
    }
    augmented_by_default = True

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        for number in range(8):
            file = folder / ("dark" if number % 2 else "light") / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.new("L", (10 + number, 8), 25 * number).save(file)
        return {"path": str(folder), "image_size": 8, "num_channels": 1, "val_fraction": 0.25, "batch_size": 4}

    def __init__(self, path: str, val_fraction: float = 0.1, skip_unreadable: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.path = existing_path(path, "path")
        self.val_fraction = val_fraction
        self.skip_unreadable = skip_unreadable

    @property
    def source(self) -> str:
        return str(self.path)

    def load(self) -> ImageSplits:
        return load_class_folders(self.path, self.val_fraction, self.known.get("label_names"))


def existing_path(name: str, flag: str) -> Path:
    """Return the file or folder that the value of a flag names.

    Raises:
        DataError: If it does not exist.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    raise DataError(f"{flag}: {missing(path, 'file or folder')}")


# Classes and splits


class TreeStore(ImageStore):
    """Images in a folder or archive.

    Args:
        tree: the folder or archive.
        names: paths of the images in it.
    """

    hint = SKIP_HINT

    def __init__(self, tree: FileTree, names: list[str]) -> None:
        self.tree = tree
        self.names = names

    def open(self, number: int) -> Image.Image:
        name = self.names[number]
        if isinstance(self.tree, FolderTree):
            return open_image(self.tree.path / name)  # reads the header only
        return open_image(io.BytesIO(self.tree.read(name)))

    def location(self, number: int) -> str:
        return self.tree.shown(self.names[number])


def load_class_folders(path: Path, val_fraction: float, known: Sequence[str] | None = None) -> ImageSplits:
    """Load a data set from a folder or zip archive with a folder for each class, or for each class in each split.

    Args:
        path: The folder or archive. A single top-level folder in it is skipped.
        val_fraction: Fraction of each class for validation if there is no folder for it.
        known: Names of the classes of a trained model. Training images are optional with these.

    Raises:
        DataError: If there are no such folders, one of them is empty, or their classes differ.
    """
    tree = open_tree(path)
    names = require_files(tree, SUFFIXES, "images")
    found = find_class_folders(tree, names, "images", known)
    images = {}
    for split in found.files:
        files, labels = found.labelled(split)
        images[split] = LabelledImages(TreeStore(tree, files), torch.arange(len(files)), torch.tensor(labels))
    if "validation" not in images and "train" in images:
        images |= split_for_validation(images["train"], val_fraction)
    return ImageSplits(found.label_names, images)
