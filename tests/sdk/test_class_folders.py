"""Folders of classes: similar and invalid names, files outside of them, folders of splits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perceiver_plugins.sdk.data.class_folders import ClassFolders, find_class_folders
from perceiver_plugins.sdk.data.file_trees import FolderTree, select_files
from perceiver_plugins.sdk.errors import DataError


def find_classes(root: Path, *names: str) -> ClassFolders:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    tree = FolderTree(root)
    return find_class_folders(tree, select_files(tree, [".x"], "things"), "things")


@pytest.mark.parametrize("names", [("cat", "cat "), ("a b", "a  b"), ("\u00e9t\u00e9", "e\u0301te\u0301")])
def test_classes_that_look_the_same_are_rejected(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"differ only by white space or the encoding of accents \(merge the folders"):
        find_classes(tmp_path, *(f"{name}/1.x" for name in names))


def test_classes_that_differ_by_case_are_reported(tmp_path, caplog) -> None:
    with caplog.at_level("INFO"):
        assert find_classes(tmp_path, "A/1.x", "a/2.x", "b/3.x").label_names == ["A", "a", "b"]
    assert "'A' and 'a' differ only by case and are two classes" in caplog.text


def test_class_name_must_be_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xe9t\xe9")
    with pytest.raises(DataError) as caught:
        find_classes(tmp_path, f"{name}/1.x", "b/1.x")
    assert str(caught.value) == f"{tmp_path}/\\xe9t\\xe9: the name of the folder is not UTF-8 (rename it)"


def test_files_outside_of_classes_are_counted(tmp_path, caplog) -> None:
    with caplog.at_level("INFO"):
        folders = find_classes(
            tmp_path, "Train/a/1.x", "Train/b/1.x", "Train/0.x", "holdout/a/1.x", "0.x", "VALID/a/2.x"
        )
    assert folders.files == {
        "train": {"a": ["Train/a/1.x"], "b": ["Train/b/1.x"]},
        "validation": {"a": ["VALID/a/2.x"]},
    }
    assert f"3 things outside the folders of classes left out: {tmp_path}/0.x, ..." in caplog.text
    assert f"{tmp_path}/VALID: no folder for 1 of 2 classes: 'b'" in caplog.text


@pytest.mark.parametrize("name", ["valid", "Validation", "VAL"])
def test_two_folders_of_one_split_are_rejected(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="are for validation"):
        find_classes(tmp_path, "train/a/1.x", "train/b/1.x", "val/a/1.x", f"{name}/a/1.x")


def test_class_of_links_is_empty(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to("../a")
    with pytest.raises(DataError, match=r"b: no things in the folder of this class"):
        find_classes(tmp_path, "a/1.x")
