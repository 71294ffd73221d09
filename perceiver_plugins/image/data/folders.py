"""Images in a folder a class, as they are or in a zip archive."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image

from perceiver_plugins.image.data.decoding import SUFFIXES, open_image
from perceiver_plugins.image.data.module import ImageDataModule
from perceiver_plugins.image.data.sources import ImageSplits, ImageStore, LabelledImages, set_aside
from perceiver_plugins.sdk.data.class_folders import find_class_folders
from perceiver_plugins.sdk.data.file_trees import FileTree, FolderTree, open_tree
from perceiver_plugins.sdk.data.missing_files import missing
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.data.tree_files import require_files
from perceiver_plugins.sdk.errors import DataError

SKIP_HINT = "; skip_unreadable=true leaves such images out"


class ImageFolderDataModule(ImageDataModule):
    """Your own images: a folder with a folder for each class, or a zip archive of such a folder.

    The folders' names are the names of the classes. If there are folders ``train`` and, perhaps, ``val`` (or
    ``valid``, ``validation``) and ``test``, the folders of the classes are in these. Without one for validation, a
    part of each class is set aside, always the same.

    Images are found by their names: .jpg, .jfif, .png, .webp, .avif, .gif, .bmp, .tiff, .jp2 and the like, at any depth
    below the folder of their class. Hidden files and those that systems add are ignored; others are counted and
    reported, and so are links to folders that are read anyway.

    Args:
        path: The folder, or the zip archive, which is read as it is.
        val_fraction: Part of the training images that is set aside for validation where there is no folder for it.
        skip_unreadable: Leave out images that cannot be read, instead of ending with an error. Each image is
            read once before training to find them.
    """

    missing_split: ClassVar[dict[str, str]] = {
        **ImageDataModule.missing_split,
        "test": "there is no test data: no folder 'test' with a folder for each class",
    }

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
        self.path = find(path, "path")
        self.val_fraction = val_fraction
        self.skip_unreadable = skip_unreadable

    @property
    def source(self) -> str:
        return str(self.path)

    def load(self) -> ImageSplits:
        return load_class_folders(self.path, self.val_fraction, self.known.get("label_names"))


def find(name: str, flag: str) -> Path:
    """The file or folder that is meant by the value of a flag.

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
        names: the images' paths in it.
    """

    hint = SKIP_HINT

    def __init__(self, tree: FileTree, names: list[str]) -> None:
        self.tree = tree
        self.names = names

    def open(self, number: int) -> Image.Image:
        name = self.names[number]
        if isinstance(self.tree, FolderTree):
            return open_image(self.tree.path / name)  # of which headers alone may be read
        return open_image(io.BytesIO(self.tree.read(name)))

    def place(self, number: int) -> str:
        return self.tree.shown(self.names[number])


def load_class_folders(path: Path, val_fraction: float, known: Sequence[str] | None = None) -> ImageSplits:
    """The data set in a folder, or zip archive, with a folder for each class, or for each class in each split.

    Args:
        path: The folder or archive. A single folder in it that holds all the others is passed over.
        val_fraction: Part of each class that is set aside where there is no folder for validation.
        known: Names of the classes of a trained model, with which no training images are needed.

    Raises:
        DataError: If there are no such folders, or if one of them is empty or does not fit to the others.
    """
    tree = open_tree(path)
    names = require_files(tree, SUFFIXES, "images")
    found = find_class_folders(tree, names, "images", known)
    images = {}
    for split in found.files:
        own, labels = found.labelled(split)
        images[split] = LabelledImages(TreeStore(tree, own), torch.arange(len(own)), torch.tensor(labels))
    if "validation" not in images and "train" in images:
        images |= set_aside(images["train"], val_fraction)
    return ImageSplits(found.label_names, images)
