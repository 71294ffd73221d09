"""Files in folders and archives, and reports of files that are left out."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

from perceiver_plugins.sdk.data.file_trees import FolderTree, ZipTree, open_tree, select_files
from perceiver_plugins.sdk.errors import DataError


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    write(root, "a/1.x", "a/2.X", "b/1.x")
    return root


@pytest.mark.parametrize("target", [".", "..", "../..", "../b", "/"])
def test_link_into_the_tree_is_left_out(root: Path, target: str, caplog: pytest.LogCaptureFixture) -> None:
    (root / "a" / "link").symlink_to(target)
    tree = FolderTree(root)
    assert tree.names == ["a/1.x", "a/2.X", "b/1.x"]
    assert tree.folders == ["a", "b"]
    with caplog.at_level("INFO"):
        assert select_files(tree, [".x"], "things") == tree.names
    assert f"1 links, special files or repeated names left out: {root}/a/link (a link to a folder" in caplog.text


def test_linked_folder_outside_is_read_once(root: Path, tmp_path: Path) -> None:
    write(tmp_path / "more", "deep/3.x")
    (tmp_path / "more" / "deep" / "back").symlink_to(root)
    for name in ("b/link", "a/link"):
        (root / name).symlink_to(tmp_path / "more")
    tree = FolderTree(root)
    assert tree.names == ["a/1.x", "a/2.X", "a/link/deep/3.x", "b/1.x"]
    assert len(tree.left_out) == 2
    assert tree.read("a/link/deep/3.x") == b"deep/3.x"


def test_circular_links_are_reported(root: Path) -> None:
    (root / "a" / "link").symlink_to("../b/link")
    (root / "b" / "link").symlink_to("../a/link")
    with pytest.raises(DataError, match=r"a/link: cannot be read \(Too many levels"):
        FolderTree(root).read("a/link")


def test_broken_link_is_an_error_and_pipe_is_left_out(root: Path) -> None:
    (root / "a" / "broken.x").symlink_to("missing")
    os.mkfifo(root / "a" / "pipe.x")  # reading would block
    tree = FolderTree(root)
    assert "a/broken.x" in tree.names
    assert tree.left_out == [f"{root}/a/pipe.x (not a regular file)"]
    with pytest.raises(DataError, match=r"a/broken\.x: cannot be read \(No such file"):
        tree.read("a/broken.x")


def test_unreadable_folder_is_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(DataError, match=r"data/b: cannot be read \(Permission denied\)"):
            FolderTree(root)


SYSTEM = (
    *("__MACOSX/a/1.x", ".hidden/1.x", "a/._1.x", "a/.DS_Store", "@eaDir/a/1.x"),
    *("a/Thumbs.db", "$RECYCLE.BIN/1.x", "lost+found/1.x"),
)


@pytest.mark.parametrize("packed", [False, True])
def test_hidden_and_system_files_are_ignored(root: Path, tmp_path: Path, packed: bool) -> None:
    write(root, *SYSTEM)
    path = root
    if packed:
        path = tmp_path / "data.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name in (*SYSTEM, "a/1.x", "a/2.X", "b/1.x"):
                archive.write(root / name, name)
    tree = open_tree(path)
    assert tree.names == ["a/1.x", "a/2.X", "b/1.x"]
    assert (set(tree.folders), tree.left_out) == (set() if packed else {"a", "b"}, [])


def test_other_files_are_counted_by_suffix(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(root, "a/1.heic", "a/2.HEIC", "b/notes.txt", "b/README")
    with caplog.at_level("INFO"):
        assert select_files(open_tree(root), [".x"], "things") == ["a/1.x", "a/2.X", "b/1.x"]
    assert "4 files left out: 2 .heic, 1 without ending, 1 .txt; things end in .x" in caplog.text


def test_archive_with_backslashes_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("x")
        entry.filename = "cat\\1.x"
        archive.writestr(entry, b"content")
    tree = ZipTree(tmp_path / "a.zip")
    assert tree.names == ["cat/1.x"]
    assert tree.read("cat/1.x") == b"content"


def test_repeated_names_in_archives_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.x", b"first")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("1.x", b"second")
    tree = ZipTree(tmp_path / "a.zip")
    with caplog.at_level("INFO"):
        assert select_files(tree, [".x"], "things") == ["1.x"]
    assert tree.read("1.x") == b"second"
    assert "1 links, special files or repeated names left out" in caplog.text
    assert "a.zip/1.x (a later entry has the same name)" in caplog.text


def test_encrypted_and_huge_files_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.x", b"content")
    tree = ZipTree(tmp_path / "a.zip")
    tree._entries["1.x"].flag_bits |= 1  # encrypted
    with pytest.raises(DataError, match=r"a\.zip/1\.x: cannot be read from the archive \(File '1\.x' is encrypted"):
        tree.read("1.x")
    monkeypatch.setattr("perceiver_plugins.sdk.data.file_trees.MAX_FILE_SIZE", 3)
    with pytest.raises(DataError, match=r"a\.zip/1\.x: 7 bytes are above the limit of 3"):
        tree.read("1.x")


@pytest.mark.parametrize("packed", [False, True])
def test_files_above_a_given_size_are_not_read(root: Path, tmp_path: Path, packed: bool) -> None:
    (root / "large.txt").write_text("12345")
    path = root
    if packed:
        path = tmp_path / "files.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(root / "large.txt", "large.txt")
    tree = open_tree(path)
    assert tree.read("large.txt", max_size=5) == b"12345"
    with pytest.raises(DataError, match=r"large.txt: 5 bytes are above the limit of 4$"):
        tree.read("large.txt", max_size=4)
