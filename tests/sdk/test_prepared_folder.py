"""Prepared folders: verified on use, created again if damaged."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from perceiver_plugins.sdk.data.prepared_folder import MANIFEST, find_damage, make_folder, reuse_folder


def make(work: Path, result: Path) -> list[str]:
    (result / "train").mkdir()
    (result / "train" / "ids.npy").write_bytes(bytes(range(200)))
    (result / "facts.json").write_text("{}")
    return ["two rows left out"]


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": lambda folder: flip(folder / "train" / "ids.npy"),
    "truncated": lambda folder: (folder / "train" / "ids.npy").write_bytes(bytes(range(100))),
    "empty": lambda folder: (folder / "facts.json").write_text(""),
    "missing": lambda folder: (folder / "train" / "ids.npy").unlink(),
    "added": lambda folder: (folder / "train" / "more.npy").write_text(""),
    "no manifest": lambda folder: (folder / MANIFEST).unlink(),
    "flipped manifest": lambda folder: (folder / MANIFEST).write_text('{"files": {"a": 3}}'),
    "list as manifest": lambda folder: (folder / MANIFEST).write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data_is_prepared_again_and_reported(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "data"
    with pytest.warns(UserWarning, match="two rows left out"):
        make_folder(folder, make)
    assert find_damage(folder) == ""
    DAMAGES[damage](folder)
    assert not reuse_folder(folder)
    with pytest.warns(UserWarning, match="damaged") as warned:
        make_folder(folder, make)
    lines = [str(each.message) for each in warned if "damaged" in str(each.message)]
    assert len(lines) == 1
    assert lines[0].startswith(f"{folder}: the prepared data is damaged (")
    assert find_damage(folder) == ""
    assert (folder / "train" / "ids.npy").read_bytes() == bytes(range(200))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".data.lock", "data"]


def test_notes_are_reported_on_every_use(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.warns(UserWarning, match="two rows left out"):
            make_folder(tmp_path / "data", make)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_data_is_prepared_again_by_one_process(tmp_path: Path) -> None:
    make_folder(tmp_path / "data", make)
    DAMAGES["flipped"](tmp_path / "data")
    made: list[Path] = []

    def counted(work: Path, result: Path) -> list[str]:
        made.append(work)
        return make(work, result)

    threads = [threading.Thread(target=make_folder, args=(tmp_path / "data", counted)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(made) == 1
    assert find_damage(tmp_path / "data") == ""
