"""Folders of classes: names that are alike or no text, files outside of them, spellings of splits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perceiver_plugins.sdk.data.class_folders import ClassFolders, find_class_folders
from perceiver_plugins.sdk.data.file_trees import FolderTree, select_files
from perceiver_plugins.sdk.errors import DataError


def found(root: Path, *names: str) -> ClassFolders:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    tree = FolderTree(root)
    return find_class_folders(tree, select_files(tree, [".x"], "things"), "things")


@pytest.mark.parametrize("names", [("cat", "cat "), ("a b", "a  b"), ("\u00e9t\u00e9", "e\u0301te\u0301")])
def test_classes_that_look_the_same_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"differ by white space or the encoding of accents alone \(merge the folders"):
        found(tmp_path, *(f"{name}/1.x" for name in names))


def test_classes_that_differ_by_case_are_two_and_it_is_said(tmp_path, caplog) -> None:
    with caplog.at_level("INFO"):
        assert found(tmp_path, "A/1.x", "a/2.x", "b/3.x").label_names == ["A", "a", "b"]
    assert "'A' and 'a', which differ by case alone, are two classes" in caplog.text


def test_the_name_of_a_class_must_be_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xe9t\xe9")
    with pytest.raises(DataError) as caught:
        found(tmp_path, f"{name}/1.x", "b/1.x")
    assert str(caught.value) == f"{tmp_path}/\\xe9t\\xe9: the name of the folder is not UTF-8 (rename it)"


def test_files_outside_of_the_classes_are_counted(tmp_path, caplog) -> None:
    with caplog.at_level("INFO"):
        folders = found(tmp_path, "Train/a/1.x", "Train/b/1.x", "Train/0.x", "holdout/a/1.x", "0.x", "VALID/a/2.x")
    assert folders.files == {
        "train": {"a": ["Train/a/1.x"], "b": ["Train/b/1.x"]},
        "validation": {"a": ["VALID/a/2.x"]},
    }
    assert f"3 things outside the folders of classes left out: {tmp_path}/0.x, ..." in caplog.text
    assert f"{tmp_path}/VALID: no folder for 1 of 2 classes: 'b'" in caplog.text


@pytest.mark.parametrize("name", ["valid", "Validation", "VAL"])
def test_two_folders_of_one_split_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="are for validation"):
        found(tmp_path, "train/a/1.x", "train/b/1.x", "val/a/1.x", f"{name}/a/1.x")


def test_a_link_to_another_class_does_not_fill_a_class(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "link").symlink_to("../a")
    with pytest.raises(DataError, match=r"b: there are no things in the folder of this class"):
        found(tmp_path, "a/1.x")
