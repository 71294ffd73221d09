"""Data sets with a folder for each class, optionally within a folder for each split."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pytorch_lightning.utilities import rank_zero_info

from perceiver_plugins.sdk.data.file_trees import FileTree, printable, report_unused
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import near

SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Split of each folder name, in lower case."""


@dataclass(frozen=True)
class ClassFolders:
    """Files of each class.

    Args:
        label_names: names of the classes of the training data, sorted.
        files: paths of the files, by split and class.
    """

    label_names: list[str]
    files: dict[str, dict[str, list[str]]]

    def labelled(self, split: str) -> tuple[list[str], list[int]]:
        """Return the files of a split, and the class index of each."""
        classes = self.files[split]
        pairs = [(name, label) for label, key in enumerate(self.label_names) for name in classes.get(key, ())]
        return [name for name, _ in pairs], [label for _, label in pairs]


def find_class_folders(
    tree: FileTree, names: Sequence[str], noun: str, known: Sequence[str] | None = None
) -> ClassFolders:
    """Find the folders of classes in a tree, or in each folder of a split. Files outside of them are reported.

    If the tree has a single top-level folder, the folders are searched in it.

    Args:
        tree: the folder or archive.
        names: paths of the examples in it.
        noun: plural noun for the examples in messages, such as "images".
        known: names of the classes of a trained model. Training data is optional with these.

    Raises:
        DataError: if there are no such folders, if one is empty, if the classes of the splits differ, or if names of
            classes look alike or are not UTF-8.
    """
    children = _children(tree, names)
    root = _root(children)
    splits = _split_folders(tree, children, root, known is not None)
    files = {split: _classes(tree, children, names, folder, noun) for split, folder in splits.items()}
    if "train" in files or known is None:
        label_names, train = sorted(files["train"]), tree.shown(splits["train"])
        if len(label_names) < 2:
            raise DataError(f"{train}: a single folder of a class, {label_names[0]!r} (at least two are needed)")
        _check_alike(train, label_names)
    else:
        label_names, train = list(known), "the data of the model"
    for split in files.keys() - {"train"}:
        _check_known(tree.shown(splits[split]), train, label_names, files[split])
    used = {name for classes in files.values() for examples in classes.values() for name in examples}
    report_unused(tree, names, used, f"{noun} outside the folders of classes")
    return ClassFolders(label_names, files)


def _children(tree: FileTree, names: Iterable[str]) -> Mapping[str, set[str]]:
    """Map each folder to the names of its folders; the tree itself is ""."""
    children: dict[str, set[str]] = defaultdict(set)
    for folder in {*tree.folders, *(name.rpartition("/")[0] for name in names)}:
        while folder:
            parent, _, child = folder.rpartition("/")
            children[parent].add(child)
            folder = parent
    return children


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _root(children: Mapping[str, set[str]]) -> str:
    """Return the folder that contains the folders of the classes or splits."""
    root = ""
    while len(children[root]) == 1:
        (child,) = children[root]
        if child.lower() in SPLIT_FOLDERS or not children[_join(root, child)]:
            break
        root = _join(root, child)
    return root


def _split_folders(
    tree: FileTree, children: Mapping[str, set[str]], root: str, without_training: bool
) -> dict[str, str]:
    """Return the folder of each split. Training data is optional if ``without_training``."""
    named = sorted(filter(_is_split, children[root]))
    # A class may also be named "train": class folders contain files, split folders contain folders.
    with_classes = [folder for folder in named if children[_join(root, folder)]]
    splits = _folders_by_split(tree, root, with_classes)
    if splits and "train" not in splits and not without_training:
        raise DataError(f"{tree.path}: a folder {with_classes[0]!r}, but no 'train' with folders of classes")
    empty = [folder for folder in named if folder not in with_classes]
    if len(named) < len(children[root]):
        empty = _empty_validation(empty, splits)
    if empty:
        raise DataError(f"{tree.shown(_join(root, empty[0]))}: no folders of classes in it")
    return splits or {"train": root}


def _empty_validation(folders: Iterable[str], splits: Mapping[str, str]) -> list[str]:
    """Select the empty folders that are errors even next to other folders: those of validation, if there are splits."""
    return [folder for folder in folders if splits and _split_of(folder) == "validation"]


def _is_split(name: str) -> bool:
    return name.lower() in SPLIT_FOLDERS


def _split_of(name: str) -> str:
    return SPLIT_FOLDERS[name.lower()]


def _folders_by_split(tree: FileTree, root: str, names: Iterable[str]) -> dict[str, str]:
    """Map splits to their folders.

    Raises:
        DataError: if two folders are for the same split.
    """
    splits: dict[str, str] = {}
    for name in names:
        split = _split_of(name)
        if split in splits:
            raise DataError(f"{tree.path}: both {splits[split]} and {_join(root, name)} are for {split}")
        splits[split] = _join(root, name)
    return splits


def _classes(
    tree: FileTree, children: Mapping[str, set[str]], names: Iterable[str], folder: str, noun: str
) -> dict[str, list[str]]:
    """Map the classes in a folder to their files."""
    classes: dict[str, list[str]] = {name: [] for name in sorted(children[folder])}
    start = len(folder) + 1 if folder else 0
    for name in names:
        if name.startswith(f"{folder}/") or not folder:
            label_name, within, _ = name[start:].partition("/")
            if within:
                classes[label_name].append(name)
    if not classes:
        raise DataError(f"{tree.shown(folder)}: no folders of classes ({noun} must be in a folder for each class)")
    for label_name, examples in classes.items():
        shown = tree.shown(_join(folder, label_name))
        if printable(label_name) != label_name:
            raise DataError(f"{shown}: the name of the folder is not UTF-8 (rename it)")
        if not examples:
            raise DataError(f"{shown}: no {noun} in the folder of this class")
    return classes


def _check_alike(folder: str, label_names: Sequence[str]) -> None:
    """Reject names that look the same. Report names that differ by case only: they may be intended."""
    seen: dict[str, str] = {}
    for name in label_names:
        looks = unicodedata.normalize("NFC", " ".join(name.split()))
        if looks in seen:
            raise DataError(
                f"{folder}: the class names {seen[looks]!r} and {name!r} differ only by white space or the encoding of "
                "accents (merge the folders, or rename one)"
            )
        seen[looks] = name
    cases: dict[str, str] = {}
    for looks, name in seen.items():
        if (other := cases.setdefault(looks.casefold(), name)) != name:
            rank_zero_info(f"{folder}: {other!r} and {name!r} differ only by case and are two classes")


def _check_known(folder: str, train: str, label_names: list[str], classes: Mapping[str, list[str]]) -> None:
    """Reject classes that the training data lacks, and report missing ones."""
    if unknown := sorted(classes.keys() - set(label_names)):
        hint = near(unknown[0], label_names, label_names[:10])
        raise DataError(f"{folder}/{unknown[0]}: not a class of {train} ({hint})")
    if missing := [name for name in label_names if name not in classes]:
        some = ", ".join(map(repr, missing[:5])) + (", ..." if len(missing) > 5 else "")
        rank_zero_info(f"{folder}: no folder for {len(missing)} of {len(label_names)} classes: {some}")
