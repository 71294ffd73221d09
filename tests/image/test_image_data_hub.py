"""Image data sets of the hub and of local folders in its layout."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from perceiver_plugins.image.data import HubImagesDataModule, ImageNetDataModule
from perceiver_plugins.sdk import hub as hub_access
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def picture(value: int, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (12, 10), (value,) * 3).convert(mode)


def encoded(value: int) -> dict[str, Any]:
    file = io.BytesIO()
    picture(value).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{value}.png"}


NAMES = ["cat", "dog", "owl"]


def table(first: int, number: int, labels: list[Any] | None = None, label: Any = None, **more: Any) -> datasets.Dataset:
    """Create a table of images of one value each, from ``first`` on, with alternating classes."""
    values = labels or [index % 3 for index in range(number)]
    features = {"image": datasets.Image(), "label": label or datasets.ClassLabel(names=NAMES)}
    columns = {"image": [picture(first + index) for index in range(number)], "label": values}
    return datasets.Dataset.from_dict(columns | more, datasets.Features(features) if not more else None)


def contents(module: HubImagesDataModule) -> dict[str, list[tuple[int, str]]]:
    """Return value and class of each image in each split."""
    module.setup()
    found = {}
    for split, images in module.splits.images.items():
        values = [np.asarray(images.read(index, 1))[0, 0].item() for index in range(len(images))]
        found[split] = list(zip(values, [module.label_names[label] for label in images.labels.tolist()], strict=True))
    return found


def expected(first: int, number: int) -> list[tuple[int, str]]:
    return [(first + index, NAMES[index % 3]) for index in range(number)]


def test_saved_splits(tmp_path: Path) -> None:
    splits = {"train": table(0, 7), "validation": table(50, 4), "test": table(90, 3)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "data")
    module = HubImagesDataModule(str(tmp_path / "data"))
    assert contents(module) == {"train": expected(0, 7), "validation": expected(50, 4), "test": expected(90, 3)}
    assert (module.label_names, module.num_classes, module.class_counts) == (NAMES, 3, [3, 2, 2])
    assert (module.image_size, module.num_channels) == ((10, 12), 3)
    joined = HubImagesDataModule(str(tmp_path / "data"), train_split="train+test", val_split="test")
    assert contents(joined)["train"] == expected(0, 7) + expected(90, 3)
    assert contents(joined)["validation"] == expected(90, 3)
    with pytest.raises(DataError, match="no split 'dev'; known: train, validation, test"):
        _ = HubImagesDataModule(str(tmp_path / "data"), val_split="dev").num_classes


def test_saved_data_set_without_splits(tmp_path: Path) -> None:
    table(0, 30).save_to_disk(tmp_path / "data")
    module = HubImagesDataModule(str(tmp_path / "data"), val_fraction=0.2)
    found = contents(module)
    assert sorted(found["train"] + found["validation"]) == expected(0, 30)
    assert sorted(name for _, name in found["validation"]) == ["cat"] * 2 + ["dog"] * 2 + ["owl"] * 2
    with pytest.raises(DataError, match=r"no test data: no split 'test' with labels \(set test_split"):
        module.test_dataloader()


def test_files_in_hub_layout(tmp_path: Path) -> None:
    folder = tmp_path / "some" / "data"
    folder.mkdir(parents=True)
    table(0, 5).to_parquet(folder / "train-00000-of-00002.parquet")
    table(5, 1).to_parquet(folder / "train-00001-of-00002.parquet")
    table(50, 4).to_parquet(folder / "validation-00000-of-00001.parquet")
    found = contents(HubImagesDataModule(str(tmp_path / "some")))
    assert found == {"train": expected(0, 5) + expected(5, 1), "validation": expected(50, 4)}


def test_plain_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, first in (("train", 0), ("test", 90)):
        columns = {
            "img": [encoded(first + index) for index in range(6)],
            "kind": [NAMES[index % 3] for index in range(6)],
        }
        pq.write_table(pa.table(columns), tmp_path / "data" / f"{split}.parquet")
    module = HubImagesDataModule(str(tmp_path / "data"), image_column="img", label_column="kind", val_fraction=0.3)
    found = contents(module)
    assert sorted(found["train"] + found["validation"]) == expected(0, 6)
    assert found["test"] == expected(90, 6)


def test_batches_and_workers(tmp_path: Path) -> None:
    table(0, 12).save_to_disk(tmp_path / "data")
    modules = [
        HubImagesDataModule(
            str(tmp_path / "data"), batch_size=3, random_shift=0, num_workers=workers, mean=0.0, std=1 / 255
        )
        for workers in (0, 2)
    ]
    for module in modules:
        module.setup()
    for one, other in zip(*(module.train_dataloader() for module in modules), strict=True):
        assert torch.equal(one["pixel_values"], other["pixel_values"])
        values = one["pixel_values"][:, 0, 0, 0].round().long()
        assert torch.equal(values % 3, one["labels"])
        assert torch.equal(one["labels"], other["labels"])


@pytest.mark.parametrize(
    ("labels", "kind", "names"),
    [
        ([3, 5, 3, 10], datasets.Value("int64"), ["3", "5", "10"]),
        (["b", "a", "b", "c"], datasets.Value("string"), ["a", "b", "c"]),
        ([True, False, True, True], datasets.Value("bool"), ["False", "True"]),
    ],
)
def test_labels_without_names(labels: list[Any], kind: Any, names: list[str], tmp_path: Path) -> None:
    table(0, 4, labels, kind).save_to_disk(tmp_path / "data")
    module = HubImagesDataModule(str(tmp_path / "data"))
    assert module.label_names == names
    found = contents(module)
    assert sorted(found["train"] + found["validation"]) == [(value, str(label)) for value, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("train", "validation", "kind", "message"),
    [
        ([0, -1, 2], [0], None, r"split 'train', row 1: the label -1 is not one of the 3 classes \(cat, dog, owl\)"),
        ([0, None, 2], [0], None, "split 'train', row 1: the label None is not one"),
        (
            [0, 1, 0],
            [0, 7],
            datasets.Value("int32"),
            "'validation', row 1: the label 7 is not one of the 2 classes",
        ),
        ([0, -1, 0], [0], datasets.Value("int32"), "split 'train', row 1: the label -1 is not one"),
        ([0.5, 1.0, 0.0], [0.5], datasets.Value("float32"), "split 'train', row 0: the label 0.5 is not one of the 0"),
        (["a", "b", ""], ["x"], datasets.Value("string"), "split 'validation', row 0: the label 'x' is not one"),
        (
            [[0], [1, 0], [0]],
            [[2]],
            datasets.Sequence(datasets.Value("int64")),
            "'validation', row 0: the label '2' .* does not occur in the training data",
        ),
        (["a", None, "b"], ["a"], datasets.Value("string"), "split 'train', row 1: the label None is not one"),
    ],
)
def test_labels_out_of_range(train: Any, validation: Any, kind: Any, message: str, tmp_path: Path) -> None:
    splits = {"train": table(0, len(train), train, kind), "validation": table(0, len(validation), validation, kind)}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match=message) as caught:
        _ = HubImagesDataModule(str(tmp_path / "data")).num_classes
    assert "\n" not in str(caught.value)


def test_label_beyond_the_class_names(tmp_path: Path) -> None:
    # `datasets` itself refuses to write one, other writers do not.
    data = table(0, 3)
    features = data.features
    storage = data.data.table.set_column(1, "label", pa.array([0, 3, 1]))
    datasets.Dataset(storage, datasets.DatasetInfo(features=features)).save_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match="row 1: the label 3 is not one of the 3 classes"):
        _ = HubImagesDataModule(str(tmp_path / "data")).num_classes


def test_test_split_without_labels(tmp_path: Path) -> None:
    splits = {"train": table(0, 6), "validation": table(50, 3), "test": table(90, 2, [-1, -1])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "data")
    module = ImageNetDataModule(str(tmp_path / "data"))
    assert set(contents(module)) == {"train", "validation"}
    with pytest.raises(DataError, match="the labels of ImageNet's test images are not public"):
        module.test_dataloader()
    with pytest.raises(DataError, match="the label -1 is not one"):
        _ = HubImagesDataModule(str(tmp_path / "data"), test_split="test").num_classes


def test_columns(tmp_path: Path) -> None:
    table(0, 3).rename_columns({"image": "photo", "label": "fine"}).save_to_disk(tmp_path / "data")
    module = HubImagesDataModule(str(tmp_path / "data"), label_column="fine")
    assert contents(module)["train"] == expected(0, 3)
    with pytest.raises(DataError, match="no column 'label' with classes; label_column must be one of: photo, fine"):
        _ = HubImagesDataModule(str(tmp_path / "data")).num_classes
    with pytest.raises(DataError, match="no column 'img' with images; image_column must be one of: photo, fine"):
        _ = HubImagesDataModule(str(tmp_path / "data"), image_column="img", label_column="fine").num_classes
    with pytest.raises(DataError, match="the column 'fine' does not contain images") as caught:
        _ = HubImagesDataModule(str(tmp_path / "data"), image_column="fine", label_column="fine").num_classes
    assert "\n" not in str(caught.value)


def test_damaged_and_missing_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = [encoded(value) for value in range(6)]
    images[1]["bytes"] = images[1]["bytes"][:-25]
    images[2]["bytes"] = b"no image"
    columns = {"image": [*images, None], "label": [0, 0, 1, 1, 0, 1, 0]}
    data = datasets.Dataset.from_dict(columns, datasets.Features(table(0, 1).features))
    datasets.DatasetDict({"train": data, "validation": table(50, 3)}).save_to_disk(tmp_path / "data")
    module = HubImagesDataModule(str(tmp_path / "data"), batch_size=1)
    module.setup()
    with pytest.raises(DataError, match=r"split 'train', row [126]: .*; skip_unreadable=true leaves such images out"):
        list(module.train_dataloader())
    examples = module.split_datasets["train"]
    for row, message in ((1, "cannot be read"), (2, "not an image"), (6, r"cannot be read \(it is missing\)")):
        with pytest.raises(DataError, match=rf"{tmp_path}/data, split 'train', row {row}: .*{message}"):
            _ = examples[row]
    module = HubImagesDataModule(str(tmp_path / "data"), skip_unreadable=True)
    assert contents(module)["train"] == [(0, "cat"), (3, "dog"), (4, "cat"), (5, "dog")]
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path}/data: 3 of 10 images are left out: {tmp_path}/data, split 'train', row 1: ")


def test_empty_splits_and_folders(tmp_path: Path) -> None:
    table(0, 3).to_parquet(tmp_path / "files" / "train.parquet")
    columns = pq.read_schema(tmp_path / "files" / "train.parquet")
    pq.ParquetWriter(tmp_path / "files" / "validation.parquet", columns).close()
    with pytest.raises(DataError, match=r'files\' could not be loaded .*"validation" corresponds to no data'):
        _ = HubImagesDataModule(str(tmp_path / "files")).num_classes
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' could not be loaded from the folder \(") as caught:
        _ = HubImagesDataModule(str(tmp_path / "empty")).num_classes
    assert "\n" not in str(caught.value)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text("{")
    with pytest.raises(DataError, match="saved: the saved data set cannot be read"):
        _ = HubImagesDataModule(str(tmp_path / "saved")).num_classes


def test_wrong_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dataset: file or folder nowhere not found"):
        HubImagesDataModule("./nowhere")
    file = tmp_path / "a.zip"
    file.write_text("")
    with pytest.raises(DataError, match=r"a\.zip: not a folder \(give a hub id, or a folder"):
        HubImagesDataModule(str(file))
    with pytest.raises(UserError, match=r"val_fraction=1\.0"):
        HubImagesDataModule("a/b", val_fraction=1.0)


def test_unreachable_hub_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_access, "reachable", lambda: False)
    started = time.monotonic()
    with pytest.raises(DataError, match=r"'perceiver/no-such-data', subset 'x' could not be loaded from the") as caught:
        _ = HubImagesDataModule("perceiver/no-such-data", "x").num_classes
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10


def test_hub_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, subset: str | None, split: str, revision: str | None) -> datasets.Dataset:
        calls.append((name, subset, split, revision))
        return table(0, 3)

    calls: list[Any] = []
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_, **__: ["train", "validation"])
    assert set(contents(ImageNetDataModule(revision="v1"))) == {"train", "validation"}
    assert calls == [("ILSVRC/imagenet-1k", None, split, "v1") for split in ("train", "validation")]
