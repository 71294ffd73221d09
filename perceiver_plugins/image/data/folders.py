"""Images in a folder a class, as they are or in a zip archive."""

from __future__ import annotations

import io
import os
import zipfile
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import torch
from PIL import Image
from pytorch_lightning.utilities import rank_zero_info

from perceiver_plugins.image.data.decoding import SUFFIXES, open_image
from perceiver_plugins.image.data.module import ImageDataModule
from perceiver_plugins.image.data.sources import ImageSplits, ImageStore, LabelledImages, set_aside
from perceiver_plugins.training.errors import DataError
from perceiver_registry.errors import UserError, near

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Which split a folder of that name holds."""

LARGEST_FILE = 2**30
"""Bytes that a file in an archive may have. A few kilobytes of an archive can claim to be any number of gigabytes."""

SKIP_HINT = "; skip_unreadable=true leaves such images out"


class ImageFolderDataModule(ImageDataModule):
    """Your own images: a folder with a folder for each class, or a zip archive of such a folder.

    The folders' names are the names of the classes. If there are folders ``train`` and, perhaps, ``val`` (or
    ``valid``, ``validation``) and ``test``, the folders of the classes are in these. Without one for validation, a
    part of each class is set aside, always the same.

    Images are found by their names: .jpg, .png, .webp, .gif, .bmp, .tiff and the like, at any depth below the folder
    of their class. Hidden files are ignored.

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


def check_fraction(val_fraction: float) -> None:
    """Raises UserError unless the fraction leaves something on either side."""
    if not 0 < val_fraction < 1:
        raise UserError(f"val_fraction={val_fraction} must be more than 0 and less than 1")


def find(name: str, flag: str) -> Path:
    """The file or folder that is meant by the value of a flag.

    Raises:
        DataError: If it does not exist.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = f" ({near(path.name, siblings)})" if siblings and len(siblings) <= 1000 else ""
    raise DataError(f"{flag}: there is no file or folder {path}{hint}")


# Trees of files


class Tree(ABC):
    """The images in a folder or archive, by their paths in it, which have "/" between their parts.

    Args:
        path: the folder or archive.
        files: the paths of all files.
        folders: the paths of folders, which need not be complete.

    Raises:
        DataError: If none of the files is an image.
    """

    def __init__(self, path: Path, files: Iterable[str], folders: Iterable[str]) -> None:
        self.path = path
        self.files = sorted(
            name for name in files if PurePosixPath(name).suffix.lower() in SUFFIXES and not _hidden(name)
        )
        if not self.files:
            raise DataError(f"{path}: there are no images ({', '.join(SUFFIXES)})")
        self.children: dict[str, set[str]] = defaultdict(set)
        """The names of the folders in each folder; that of the tree itself is ""."""
        for folder in {*folders, *map(_parent, self.files)}:
            while folder and not _hidden(folder):
                parent, _, child = folder.rpartition("/")
                self.children[parent].add(child)
                folder = parent

    @abstractmethod
    def open(self, name: str) -> Image.Image:
        """One of the images."""


class FolderTree(Tree):
    """The images in a folder."""

    def __init__(self, path: Path) -> None:
        files, folders = [], []
        for place, inner, names in os.walk(path, followlinks=True):
            inner[:] = [name for name in inner if not _hidden(name)]
            start = Path(place).relative_to(path).as_posix()
            prefix = "" if start == "." else f"{start}/"
            files += [prefix + name for name in names]
            folders += [prefix + name for name in inner]
        super().__init__(path, files, folders)

    def open(self, name: str) -> Image.Image:
        return open_image(self.path / name)


class ZipTree(Tree):
    """The images in a zip archive, which is read as it is, by several processes if need be."""

    def __init__(self, path: Path) -> None:
        self._archives: dict[int, zipfile.ZipFile] = {}
        self.path = path
        try:
            entries = self._archive().infolist()
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: neither a folder nor a zip archive, or a damaged one") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        names = [entry.filename for entry in entries]
        folders = [name.rstrip("/") for name in names if name.endswith("/")]
        super().__init__(path, [name for name in names if not name.endswith("/")], folders)

    def open(self, name: str) -> Image.Image:
        entry = self._archive().getinfo(name)
        if entry.file_size > LARGEST_FILE:  # as the archive says itself; it is not read any further
            raise ValueError(f"it says that it has {entry.file_size:,} bytes, which no image has")
        return open_image(io.BytesIO(self._archive().read(entry)))

    def _archive(self) -> zipfile.ZipFile:
        # An open file has one position, which processes that were forked would share.
        process = os.getpid()
        if process not in self._archives:
            self._archives[process] = zipfile.ZipFile(self.path)
        return self._archives[process]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archives": {}}


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


class TreeStore(ImageStore):
    """Images in a folder or archive.

    Args:
        tree: the folder or archive.
        names: the images' paths in it.
    """

    hint = SKIP_HINT

    def __init__(self, tree: Tree, names: list[str]) -> None:
        self.tree = tree
        self.names = names

    def open(self, number: int) -> Image.Image:
        return self.tree.open(self.names[number])

    def place(self, number: int) -> str:
        return f"{self.tree.path}/{self.names[number]}"


# Classes and splits


def load_class_folders(path: Path, val_fraction: float, known: Sequence[str] | None = None) -> ImageSplits:
    """The data set in a folder, or zip archive, with a folder for each class, or for each class in each split.

    Args:
        path: The folder or archive. A single folder in it that holds all the others is passed over.
        val_fraction: Part of each class that is set aside where there is no folder for validation.
        known: Names of the classes of a trained model, with which no training images are needed.

    Raises:
        DataError: If there are no such folders, or if one of them is empty or does not fit to the others.
    """
    tree = FolderTree(path) if path.is_dir() else ZipTree(path)
    root = _root(tree)
    splits = _split_folders(tree, root, known is not None)
    found = {split: _classes(tree, folder) for split, folder in splits.items()}
    label_names = sorted(found["train"]) if "train" in found or known is None else list(known)
    images = {}
    for split, classes in found.items():
        _check_classes(tree, splits, split, label_names, classes)
        names = [name for label_name in label_names for name in classes.get(label_name, ())]
        labels = [label for label, label_name in enumerate(label_names) for _ in classes.get(label_name, ())]
        images[split] = LabelledImages(TreeStore(tree, names), torch.arange(len(names)), torch.tensor(labels))
    if "validation" not in images and "train" in images:
        images |= set_aside(images["train"], val_fraction)
    return ImageSplits(label_names, images)


def _root(tree: Tree) -> str:
    """The folder that holds the folders of the classes or splits."""
    root = ""
    while len(tree.children[root]) == 1:
        (child,) = tree.children[root]
        if child.lower() in SPLIT_FOLDERS or not tree.children[_join(root, child)]:
            break
        root = _join(root, child)
    return root


def _split_folders(tree: Tree, root: str, without_training: bool) -> dict[str, str]:
    """The folder of each split; that of the training data may be missing where it is not needed."""
    children = sorted(tree.children[root])
    named = [child for child in children if child.lower() in SPLIT_FOLDERS]
    # A class may be called "train" too: its folder holds images, the folder of a split holds folders.
    with_classes = [child for child in named if tree.children[_join(root, child)]]
    splits: dict[str, str] = {}
    for child in with_classes:
        split = SPLIT_FOLDERS[child.lower()]
        if split in splits:
            raise DataError(f"{tree.path}: both {splits[split]} and {_join(root, child)} are for {split}")
        splits[split] = _join(root, child)
    if splits and "train" not in splits and not without_training:
        raise DataError(f"{tree.path}: there is a folder {with_classes[0]!r}, but no 'train' with folders of classes")
    for child in named:
        wanted = named == children or (splits and SPLIT_FOLDERS[child.lower()] == "validation")
        if wanted and child not in with_classes:
            raise DataError(f"{tree.path}/{_join(root, child)}: there are no folders of classes in it")
    return splits or {"train": root}


def _classes(tree: Tree, folder: str) -> dict[str, list[str]]:
    """The images of each class in a folder.

    Raises:
        DataError: If there are no two classes, or no images of one of them.
    """
    classes: dict[str, list[str]] = {name: [] for name in sorted(tree.children[folder])}
    start = len(folder) + 1 if folder else 0
    for name in tree.files:
        if name.startswith(f"{folder}/") or not folder:
            label_name, within, _ = name[start:].partition("/")
            if within:
                classes[label_name].append(name)
    place = f"{tree.path}/{folder}".rstrip("/")
    if not classes:
        raise DataError(f"{place}: there are no folders of classes; images must be in a folder for each class")
    for label_name, names in classes.items():
        if not names:
            raise DataError(f"{place}/{label_name}: there are no images in the folder of this class")
    return classes


def _check_classes(
    tree: Tree, splits: dict[str, str], split: str, label_names: list[str], classes: dict[str, list[str]]
) -> None:
    place = f"{tree.path}/{splits[split]}".rstrip("/")
    if split == "train":
        if len(label_names) < 2:
            raise DataError(f"{place}: there is only one folder of a class, {label_names[0]!r}; two are needed")
        return
    trained = f"{tree.path}/{splits['train']}" if "train" in splits else "the trained model"
    if unknown := sorted(classes.keys() - set(label_names)):
        hint = near(unknown[0], label_names, label_names[:10])
        raise DataError(f"{place}/{unknown[0]}: there is no such class in {trained} ({hint})")
    if missing := [name for name in label_names if name not in classes]:
        some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        rank_zero_info(f"{place}: no folder for {len(missing)} of {len(label_names)} classes: {some}")
