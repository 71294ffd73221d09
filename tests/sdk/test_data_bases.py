"""Base classes for plugin authors: datasets, collate function, label names, file readers."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from perceiver_plugins.sdk import DataError
from perceiver_plugins.sdk.data import (
    IGNORED,
    ExampleDataset,
    NamedLabels,
    PadCollator,
    PerceiverDataModule,
    example_rng,
    read_files,
)
from perceiver_plugins.sdk.data.datasets import take_labels
from perceiver_plugins.sdk.prediction import FileReader
from perceiver_registry import UserError


class Noisy(ExampleDataset):
    """Dataset of indices, with noise in training."""

    def __init__(self, labels, seed=0):
        super().__init__(seed)
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def example(self, index, rng):
        noise = 0.0 if rng is None else rng.random()
        return {"x": torch.tensor(index + noise), "labels": self.labels[index]}


def test_augmentation_is_a_function_of_seed_epoch_and_index():
    dataset = Noisy([4, 5, 6], seed=7)
    assert [dataset[index]["x"] for index in range(3)] == [0, 1, 2]
    for epoch in (0, 3):
        for index in (2, 0):
            expected = index + example_rng(7, epoch, index).random()
            assert dataset[epoch, index]["x"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([4, 5], IGNORED), ([torch.tensor([1, 2])] * 2, [IGNORED] * 2), ([torch.tensor([0.5])] * 2, [math.nan])],
)
def test_labels_beyond_the_end_are_ignored(labels, expected):
    dataset = Noisy(labels)
    assert dataset[1]["labels"] is labels[1]
    beyond = dataset[5]
    assert beyond["x"] == 1
    torch.testing.assert_close(beyond["labels"], torch.tensor(expected), equal_nan=True)
    torch.testing.assert_close(torch.as_tensor(dataset.labels[1]), torch.as_tensor(labels[1]))  # unchanged


@pytest.mark.parametrize("labels", [torch.tensor([7, 8, 9]), torch.tensor([[1.5], [2.5], [3.5]])])
def test_batch_labels_beyond_the_end_are_ignored(labels):
    before = labels.clone()
    inside, taken = take_labels(labels, np.array([2, 0, 3, 9]))
    assert inside.tolist() == [2, 0, 2, 2]
    filler = torch.full_like(labels[:2], math.nan if labels.is_floating_point() else IGNORED)
    torch.testing.assert_close(taken, torch.cat([labels[[2, 0]], filler]), equal_nan=True)
    assert torch.equal(labels, before)


def test_ragged_tensors_are_padded_with_masks():
    collate = PadCollator({"frames": "frame_mask"}, {"frames": -1, "labels": IGNORED})
    examples = [
        {"frames": torch.ones(2, 3), "labels": torch.tensor([1]), "rate": 0.5, "id": 3},
        {"frames": torch.zeros(1, 3), "labels": torch.tensor([2, 4]), "rate": 2.0, "id": 4},
    ]
    batch = collate(examples)
    assert batch["frames"].tolist() == [[[1.0] * 3] * 2, [[0.0] * 3, [-1.0] * 3]]
    assert batch["frame_mask"].tolist() == [[1, 1], [1, 0]]
    assert batch["frame_mask"].dtype == torch.int64
    assert batch["labels"].tolist() == [[1, IGNORED], [2, 4]]
    assert batch["rate"].tolist() == [0.5, 2.0]
    assert batch["id"].tolist() == [3, 4]
    assert list(batch) == ["frame_mask", "frames", "labels", "rate", "id"]


class Named(NamedLabels, PerceiverDataModule):
    @property
    def labels(self):
        return {"train": ["10", "9", "9"], "test": ["2"]}


def test_class_names_and_counts_are_derived_from_labels():
    data = Named()
    assert data.label_names == ["2", "9", "10"]
    assert data.num_classes == 3
    assert data.label_indices("train").tolist() == [2, 1, 1]
    assert data.label_indices("test").tolist() == [0]
    assert data.class_counts == [0, 2, 1]


# Files


@pytest.fixture
def notes(tmp_path: Path) -> tuple[Path, Path]:
    """Folder of two notes and other files, and a zip archive of it."""
    for name in ("b.txt", "deep/A.TXT", "c.csv", ".hidden.txt"):
        path = tmp_path / "notes" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path / "notes")
    return tmp_path / "notes", Path(archive)


def test_files_of_folders_and_archives_are_read(notes):
    for path in notes:
        expected = [(f"{path}/b.txt", b"b.txt"), (f"{path}/deep/A.TXT", b"deep/A.TXT")]
        assert list(read_files(path, (".txt",), "notes")) == expected
        with pytest.raises(DataError, match=rf"{path}: no songs \(\.mid\)"):
            list(read_files(path, (".mid",), "songs"))
    with pytest.raises(DataError, match=r"data\.folder: folder or archive .*missing not found"):
        list(read_files(notes[0] / "missing", (".txt",), "notes", flag="data.folder"))


class NoteReader(FileReader):
    suffixes = (".txt",)
    noun = "notes"

    def decode(self, content, name):
        if not content:
            raise UserError(f"{name}: empty")
        return f"{name} {content.decode()}"

    def collate(self, examples):
        return {}


@pytest.fixture
def reader() -> NoteReader:
    return NoteReader({}, None)


def test_reader_finds_files_in_folders_and_archives(reader, notes, monkeypatch):
    folder, archive = notes
    sources = reader.expand([str(archive), str(folder), str(folder / "c.csv"), str(folder / "*.txt")])
    inside = [f"{archive}/b.txt", f"{archive}/deep/A.TXT"]
    assert sources == [*inside, f"{folder}/b.txt", f"{folder}/deep/A.TXT", f"{folder}/c.csv"]
    written = ["b.txt", "deep/A.TXT", "b.txt", "deep/A.TXT", "c.csv"]
    assert [reader.read(source) for source in sources] == [
        f"{source} {content}" for source, content in zip(sources, written, strict=True)
    ]


def test_unreadable_files_are_reported(reader, notes):
    (notes[0] / "empty.txt").touch()
    with pytest.raises(UserError, match=r"empty\.txt: empty"):
        reader.read(str(notes[0] / "empty.txt"))
    with pytest.raises(DataError, match=r"gone.txt: cannot be read \(No such file or directory\)"):
        reader.read(str(notes[0] / "gone.txt"))
    with pytest.raises(DataError, match=r"deep: cannot be read \(Is a directory\)"):
        reader.read(str(notes[0] / "deep"))


def test_folder_or_archive_without_files_is_an_error(reader, tmp_path):
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.mid").touch()
    archive = shutil.make_archive(str(tmp_path / "songs"), "zip", tmp_path / "songs")
    for path in (str(tmp_path / "songs"), archive):
        with pytest.raises(UserError, match=r"no notes \(\.txt\)"):
            reader.expand([path])
