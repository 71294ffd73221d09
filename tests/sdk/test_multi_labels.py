"""Multi-label data in each form and each kind of data module that reads label columns."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from perceiver_plugins.image.data import HubImagesDataModule
from perceiver_plugins.sdk.data.multi_labels import MultiLabels
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table import TableFilesDataModule
from perceiver_plugins.text.data import LabelledHubTextDataModule, LabelledTextFilesDataModule
from perceiver_registry.errors import UserError

NAMES = ["rain", "sun", "wind"]

TAGS = [["wind", "rain"], [], ["sun"], ["rain"], ["sun", "wind", "rain"], ["wind"], []]
"""Classes of the examples. Their number differs from that of the classes, so that transposed arrays fail."""

EXPECTED = [[float(name in tags) for name in NAMES] for tags in TAGS]

Row = dict[str, Any]


def lists() -> tuple[list[Row], Row]:
    return [{"tags": tags} for tags in TAGS], {"label_column": "tags"}


def separated() -> tuple[list[Row], Row]:
    return [{"tags": " ; ".join(tags)} for tags in TAGS], {"label_column": "tags", "label_separator": ";"}


def columns(of: Callable[[bool], Any]) -> tuple[list[Row], Row]:
    return [{name: of(name in tags) for name in NAMES} for tags in TAGS], {"label_column": NAMES}


FORMS: Mapping[str, Callable[[], tuple[list[Row], Row]]] = {
    "lists": lists,
    "separated": separated,
    "numbers": lambda: columns(int),
    "floats": lambda: columns(float),
    "booleans": lambda: columns(bool),
    "texts": lambda: columns(lambda present: "True" if present else "FALSE"),
}


def write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_json_lines(rows: Sequence[Row], path: Path) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


WRITERS = {"csv": write_csv, "jsonl": write_json_lines, "parquet": write_parquet}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def text_files(path: Path, options: Row) -> Any:
    return LabelledTextFilesDataModule(
        train_files=str(path), val_files=str(path.with_name(f"val{path.suffix}")), **options
    )


def hub_text(path: Path, options: Row) -> Any:
    return LabelledHubTextDataModule(dataset=str(path.parent), **options)


def table_files(path: Path, options: Row) -> Any:
    files = {"train_files": str(path), "val_files": str(path.with_name(f"val{path.suffix}"))}
    return TableFilesDataModule(**files, target="class", feature_columns=["x"], **options)


MODULES = {"text-files": text_files, "hub-text": hub_text, "table-files": table_files}


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("form", "kind"),
    [pair for pair in itertools.product(FORMS, WRITERS) if pair != ("lists", "csv")],  # CSV files have no lists
)
@pytest.mark.filterwarnings("ignore")
def test_all_forms_give_the_same_labels(tmp_path: Path, form: str, kind: str, module: str) -> None:
    rows, options = FORMS[form]()
    rows = [{"text": f"text {number}", "x": number, **row} for number, row in enumerate(rows)]
    (tmp_path / "data").mkdir()
    train, validation = (tmp_path / "data" / f"{name}.{kind}" for name in ("train", "val"))
    WRITERS[kind](rows, train)
    WRITERS[kind](rows[::-1], validation)
    data = MODULES[module](train, options)
    data.prepare_data()
    data.setup()
    assert (data.multi_label, data.label_names, data.num_classes) == (True, NAMES, 3)
    assert data.class_counts == [3, 2, 3]
    assert data.num_train_examples == len(TAGS)
    for split, expected in (("train", EXPECTED), ("validation", EXPECTED[::-1])):
        batch = data.split_datasets[split].batch(-1, np.arange(len(TAGS) + 2))
        assert batch["labels"].is_floating_point()
        assert batch["labels"][: len(TAGS)].tolist() == expected
        assert batch["labels"][len(TAGS) :].isnan().all()


@pytest.mark.parametrize("form", [*FORMS, "indices"])
@pytest.mark.filterwarnings("ignore")
def test_images_have_the_same_labels(tmp_path: Path, form: str) -> None:
    indices = [{"tags": [NAMES.index(tag) for tag in tags]} for tags in TAGS]
    rows, options = (indices, {"label_column": "tags"}) if form == "indices" else FORMS[form]()
    table = datasets.Dataset.from_list(rows)
    if form == "indices":
        items = datasets.Sequence(datasets.ClassLabel(names=NAMES))
        table = table.cast(datasets.Features({"tags": items}))
    file = io.BytesIO()
    Image.new("RGB", (6, 5)).save(file, "PNG")
    images = [{"bytes": file.getvalue(), "path": None}] * len(rows)
    table = table.add_column("image", images).cast_column("image", datasets.Image())
    datasets.DatasetDict({"train": table, "validation": table}).save_to_disk(tmp_path / "data")
    data = HubImagesDataModule(str(tmp_path / "data"), **options)
    data.setup()
    assert (data.multi_label, data.label_names, data.class_counts) == (True, NAMES, [3, 2, 3])
    batch = data.split_datasets["validation"].batch(-1, np.arange(len(TAGS) + 1))
    assert batch["labels"][:-1].tolist() == EXPECTED
    assert batch["labels"][-1].isnan().all()
    held_out = HubImagesDataModule(str(tmp_path / "data"), val_fraction=0.3, **options)
    with pytest.raises(UserError, match="cutmix_alpha: not supported for multi-label images"):
        HubImagesDataModule(str(tmp_path / "data"), cutmix_alpha=1.0, **options).setup()
    assert len(held_out.splits.images["train"]) == len(TAGS)


@pytest.mark.filterwarnings("ignore")
def test_names_of_indices_are_those_of_the_data_set(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": [NAMES.index(tag) for tag in tags]} for i, tags in enumerate(TAGS)]
    items = datasets.Sequence(datasets.ClassLabel(names=NAMES[::-1]))
    features = datasets.Features({"text": datasets.Value("string"), "label": items})
    table = datasets.Dataset.from_list(rows).cast(features)
    datasets.DatasetDict({"train": table, "validation": table}).save_to_disk(tmp_path / "data")
    data = LabelledHubTextDataModule(dataset=str(tmp_path / "data"))
    assert (data.multi_label, data.label_names, data.class_counts) == (True, NAMES[::-1], [3, 2, 3])


def test_images_are_held_out_without_a_validation_split(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (6, 5)).save(file, "PNG")
    rows = [{"image": {"bytes": file.getvalue(), "path": None}, "label": tags} for tags in TAGS]
    datasets.Dataset.from_list(rows).cast_column("image", datasets.Image()).save_to_disk(tmp_path / "data")
    splits = HubImagesDataModule(str(tmp_path / "data"), val_fraction=0.3).splits.images
    assert [len(splits[split]) for split in ("train", "validation")] == [5, 2]


def test_classes_of_a_model_are_recalled(tmp_path: Path) -> None:
    write_json_lines([{"x": 1, "tags": ["wind"]}], tmp_path / "val.jsonl")
    data = TableFilesDataModule(val_files=str(tmp_path / "val.jsonl"), target="class", label_column="tags")
    columns = {"names": ["x"], "mean": [0.0], "std": [1.0]}
    data.known = {"columns": columns, "label_names": NAMES, "multi_label": True}
    data.setup()
    assert data.split_datasets["validation"].labels.tolist() == [[0, 0, 1]]


def test_empty_cells_of_columns_are_unknown() -> None:
    reader = MultiLabels(["a", "b"])
    rows = [{"a": "", "b": "1"}, {"a": math.nan, "b": 0}, {"a": None, "b": "NA"}]
    read = [reader.read(row, f"line {number}") for number, row in enumerate(rows)]
    labels = reader.encode(read)
    assert np.array_equal(labels, [[math.nan, 1], [math.nan, 0], [math.nan, math.nan]], equal_nan=True)
    assert reader.facts(labels)["class_counts"] == [0, 1]
    assert reader.notes(labels, "train") == [
        "train: 4 of 6 labels are missing and ignored",
        "classes without a training example: a (1 of 2)",
        "classes of every training example: a (1 of 2)",
    ]


def test_repeated_names_and_empty_parts_are_dropped() -> None:
    reader = MultiLabels(["tags"], ",")
    assert reader.read({"tags": "b, a,b,, "}, "line 2") == ["b", "a"]
    assert reader.read({"tags": ""}, "line 3") == reader.read({"tags": None}, "line 4") == []


@pytest.mark.parametrize(
    ("separator", "cells", "names", "messages"),
    [
        (";", ["a;b", "b", ""], ["a", "b"], []),
        ("\\t", ["a\tb", "b", ""], ["a", "b"], []),
        ("tab", ["a\tb", "b", ""], ["a", "b"], []),
        (
            ";",
            ["a, b", "b"],
            ["a, b", "b"],
            ["no example of the training data has several classes .label_separator=';'"],
        ),
        (
            ",",
            ["['a', 'b']", "[]", ""],
            ["'b']", "['a'", "[]"],
            ["3 of the 3 classes in .* look like lists, .* \"'b'.\""],
        ),
    ],
)
def test_separators_that_do_not_fit_are_reported(
    separator: str, cells: list[str], names: list[str], messages: list[str]
) -> None:
    reader = MultiLabels(["tags"], separator)
    values = [reader.read({"tags": cell}, "t.csv") for cell in cells]
    reader.settle()
    assert reader.names == names
    found = reader.notes(reader.encode(values), "train")
    assert len(found) == len(messages)
    for line, message in zip(found, messages, strict=True):
        assert re.match(message, line)


@pytest.mark.parametrize(
    ("columns", "separator", "value", "message"),
    [
        (
            ["tags"],
            None,
            "rain",
            "line 3: the column 'tags' .* must list the classes of the row, got text .*label_sepa",
        ),
        (["tags"], None, {"rain": 1}, "line 3: the column 'tags' .* must list the classes of the row, got an object"),
        (["tags"], None, [["rain"]], "line 3: the column 'tags' .* must contain classes .*, not a list"),
        (["tags"], None, ["rain", None], "line 3: the label in the column 'tags' .* is missing"),
        (
            ["tags"],
            None,
            ["rain", 3],
            "line 3: the label 3 in the column 'tags' .* is a whole number, but text in line 3",
        ),
        (["tags"], None, ["snow"], "line 3: the label 'snow' .* does not occur in the training data"),
        (["tags"], ";", "rain;snow", "line 3: the label 'snow' .* does not occur in the training data"),
        (["tags", "sun"], None, 2, "line 3: 'tags' must be 0 or 1 .*, got 2"),
        (["tags", "sun"], None, "yes", "line 3: 'tags' must be 0 or 1 .*, got 'yes'"),
        (["tags", "sun"], None, 0.5, "line 3: 'tags' must be 0 or 1 .*, got 0.5"),
    ],
)
def test_invalid_labels_are_refused(columns: list[str], separator: str | None, value: Any, message: str) -> None:
    reader = MultiLabels(columns, separator)
    reader.recall(columns if len(columns) > 1 else NAMES)
    with pytest.raises(DataError, match=message):
        reader.read({"tags": value, "sun": 1}, "line 3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a", "a"],), "label_column=['a', 'a']: must name different columns"),
        ((["a", "b"], ","), "label_separator=',': has no effect with several label columns"),
        ((["a"], ""), "label_separator='': must not be empty"),
        ((["a", "b"], None, ["c", "d"]), "label_names: has no effect with several label columns"),
    ],
)
def test_invalid_options_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        MultiLabels(*arguments)


def test_other_label_columns_than_those_of_the_model_are_refused() -> None:
    with pytest.raises(DataError, match=re.escape("label_column: a, b are not the classes of the model (b, a)")):
        MultiLabels(["a", "b"]).recall(["b", "a"])
