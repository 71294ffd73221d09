"""Data modules of tables: reading, splits, standardisation, errors."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.preprocessing import StandardScaler

from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table import DiabetesDataModule, TableFilesDataModule
from perceiver_registry import UserError

ROWS = [
    {"age": 31, "name": 4.5, "label": 10.0},
    {"age": 47, "name": None, "label": 12.5},
    {"age": 29, "name": -1.5, "label": 11.0},
    {"age": 61, "name": 3.0, "label": 15.0},
    {"age": 38, "name": 0.25, "label": 9.0},
]
FORMATS = ["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.csv.gz"]


def original(data, split: str) -> np.ndarray:
    """Features of the examples in their original units."""
    return data.split_datasets[split].inputs.double().numpy() * data.columns.std + data.columns.mean


# Embedded table


def test_diabetes_split_is_fixed_and_disjoint():
    data, again = DiabetesDataModule(seed=1), DiabetesDataModule(seed=2)
    data.setup()
    again.setup()
    sizes = {split: len(examples) for split, examples in data.split_datasets.items()}
    assert sizes == {"train": 310, "validation": 66, "test": 66}
    for split in sizes:
        assert torch.equal(data.split_datasets[split].inputs, again.split_datasets[split].inputs)
    features = np.concatenate([original(data, split) for split in sizes])
    labels = torch.cat([data.split_datasets[split].labels for split in sizes])
    found = np.column_stack([features, labels.numpy()])
    patients = load_diabetes(scaled=False)
    expected = np.column_stack([patients.data, patients.target])
    order, expected_order = np.lexsort(found.round(3).T), np.lexsort(expected.round(3).T)
    np.testing.assert_allclose(found[order], expected[expected_order], rtol=1e-4, atol=1e-4)


def test_features_are_standardised_by_training_data():
    data = DiabetesDataModule()
    data.setup()
    train, validation = (data.split_datasets[split].inputs.double() for split in ("train", "validation"))
    torch.testing.assert_close(train.mean(dim=0), torch.zeros(10).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(train.std(dim=0, correction=0), torch.ones(10).double(), atol=1e-6, rtol=0)
    scaler = StandardScaler().fit(data.tables.splits["train"].features)
    expected = scaler.transform(data.tables.splits["validation"].features)
    np.testing.assert_allclose(validation.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert abs(validation.mean()) > 1e-3  # not standardised by its own mean


def test_properties_are_available_before_setup():
    data = DiabetesDataModule()
    assert (data.num_features, data.num_targets, data.target_names) == (10, 1, ["progression"])
    assert data.feature_names[:4] == ["age", "sex", "bmi", "bp"]
    targets = data.tables.splits["train"].labels
    assert data.target_mean == pytest.approx([targets.mean()])
    assert data.target_std == pytest.approx([targets.std()])
    description = data.description()
    assert json.loads(json.dumps(description)) == description
    assert description["columns"]["names"] == data.feature_names


def test_batches_have_float32_inputs_and_float64_targets():
    data = DiabetesDataModule(batch_size=7, valid_batch_size=50)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert {name: (tuple(value.shape), value.dtype) for name, value in batch.items()} == {
        "inputs": ((7, 10), torch.float32),
        "labels": ((7, 1), torch.float64),
    }
    assert [len(batch["labels"]) for batch in data.val_dataloader()] == [50, 16]
    assert torch.equal(next(iter(data.test_dataloader()))["inputs"], data.split_datasets["test"].inputs[:50])


# User's files


@pytest.mark.parametrize(("name", "feature_columns"), [*((name, None) for name in FORMATS), ("t.csv", ["age", "name"])])
def test_formats_are_read_alike(write, name, feature_columns):
    file = write(name, ROWS)
    data = TableFilesDataModule(file, val_files=write(f"v-{name}", ROWS[:2]), feature_columns=feature_columns)
    assert data.feature_names == ["age", "name"]
    data.setup()
    assert torch.equal(data.split_datasets["train"].labels, torch.tensor([[10.0], [12.5], [11.0], [15.0], [9.0]]))
    assert torch.equal(data.split_datasets["validation"].labels, torch.tensor([[10.0], [12.5]]))
    expected = [[row["age"], math.nan if row["name"] is None else row["name"]] for row in ROWS]
    np.testing.assert_allclose(original(data, "train"), expected, rtol=1e-6)


def test_statistics_ignore_missing_numbers(write):
    data = TableFilesDataModule(write("t.csv", ROWS), val_files=write("v.csv", ROWS[:1]))
    given = [row["name"] for row in ROWS if row["name"] is not None]
    assert data.columns.mean == pytest.approx([np.mean([row["age"] for row in ROWS]), np.mean(given)])
    assert data.columns.std == pytest.approx([np.std([row["age"] for row in ROWS]), np.std(given)])


def test_spellings_of_missing_numbers(write):
    spellings = ["", " ", "NA", "nan", "n/a", "NULL"]
    rows = [{"x": text, "label": text} for text in [*spellings, "1", "2", "3"]]
    with pytest.warns(UserWarning, match="train: 6 of 9 numbers in the column 'label' are missing"):
        tables = TableFilesDataModule(write("t.csv", rows), val_fraction=0.25).tables.splits
    features = np.concatenate([tables["train"].features, tables["validation"].features])
    labels = np.concatenate([tables["train"].labels, tables["validation"].labels])
    assert np.isnan(features).sum() == np.isnan(labels).sum() == 6


def test_constant_and_empty_columns_are_standardised(write):
    rows = [{"same": 0.1, "none": None, "x": number, "label": number} for number in range(7)]
    data = TableFilesDataModule(write("t.jsonl", rows), val_files=write("v.jsonl", rows[:2]))
    data.setup()
    inputs = data.split_datasets["train"].inputs
    torch.testing.assert_close(inputs[:, 0], torch.zeros(7), atol=1e-6, rtol=0)
    assert inputs[:, 1].isnan().all()
    assert data.columns.std[:2] == [1.0, 1.0]


def test_several_targets_with_missing_numbers(write):
    rows = [{"a": 1, "y": 2.0, "z": None}, {"a": 2, "y": 4.0, "z": 5.0}, {"a": 3, "y": 9.0, "z": 7.0}]
    data = TableFilesDataModule(write("t.parquet", rows), val_files=write("v.csv", rows), label_column=["y", "z"])
    assert (data.feature_names, data.target_names, data.num_targets) == (["a"], ["y", "z"], 2)
    assert data.target_mean == pytest.approx([5.0, 6.0])
    assert data.target_std == pytest.approx([np.std([2, 4, 9]), 1.0])
    data.setup()
    torch.testing.assert_close(
        data.split_datasets["validation"].labels,
        torch.tensor([[2.0, math.nan], [4.0, 5.0], [9.0, 7.0]], dtype=torch.float64),
        equal_nan=True,
    )


@pytest.mark.parametrize(
    ("labels", "texts", "names"),
    [
        (["b", "a", "b", "c"], ["b", "a", "b", "c"], ["a", "b", "c"]),
        ([10, 9, 9, 100], ["10", "9", "9", "100"], ["9", "10", "100"]),
        (["10", "9", "-1", "100"], ["10", "9", "-1", "100"], ["-1", "9", "10", "100"]),
        ([True, False, True, True], ["true", "false", "true", "true"], ["false", "true"]),
        ([2.0, 1.0, 1.0, 2.0], ["2", "1", "1", "2"], ["1", "2"]),
    ],
)
def test_classes_are_sorted(write, labels, texts, names):
    rows = [{"x": number, "label": label} for number, label in enumerate(labels)]
    data = TableFilesDataModule(write("t.jsonl", rows), val_files=write("v.jsonl", rows), target="class")
    assert data.label_names == names
    assert all(type(name) is str for name in data.label_names)  # checkpoints refuse NumPy strings
    assert data.num_classes == len(names)
    data.setup()
    found = data.split_datasets["validation"].labels
    assert found.dtype == torch.int64
    assert [names[number] for number in found] == texts
    assert data.class_counts == [texts.count(name) for name in names]


def test_validation_split_does_not_depend_on_seed(write):
    file = write("t.csv", [{"x": number, "label": number} for number in range(40)])
    parts = []
    for seed in (0, 1):
        data = TableFilesDataModule(file, val_fraction=0.25, seed=seed)
        data.setup()
        parts.append(
            {split: set(data.split_datasets[split].labels[:, 0].tolist()) for split in ("train", "validation")}
        )
    assert parts[0] == parts[1]
    assert {split: len(labels) for split, labels in parts[0].items()} == {"train": 30, "validation": 10}
    assert parts[0]["train"] | parts[0]["validation"] == set(range(40))


@pytest.mark.parametrize(("target", "ignored"), [("number", [math.nan]), ("class", IGNORED)])
def test_labels_beyond_the_end_are_ignored(write, target, ignored):
    data = TableFilesDataModule(write("t.csv", ROWS), val_files=write("v.csv", ROWS[:3]), target=target)
    data.setup()
    examples = data.split_datasets["validation"]
    torch.testing.assert_close(examples[3]["labels"], torch.tensor(ignored), equal_nan=True, check_dtype=False)
    assert examples[3]["inputs"].shape == (2,)
    assert torch.equal(examples[2]["labels"], examples[(7, 2)]["labels"])
    assert examples[2]["labels"].dtype == examples[3]["labels"].dtype


# Errors


def refused(*args, **options) -> str:
    """One-line message of the error that the data module raises."""
    with pytest.raises(UserError) as caught:
        TableFilesDataModule(*args, **options).setup()
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_all_non_numeric_columns_are_named(write):
    rows = [{"age": 3, "sex": "f", "town": "Ulm", "label": number} for number in (1, 2)]
    message = refused(write("t.csv", rows), numeric_columns=["sex", "town"])
    assert "t.csv, line 2: sex: 'f' is not a finite number; town: 'Ulm' is not a finite number" in message
    assert "feature_columns" in message
    data = TableFilesDataModule(write("t.csv", rows), feature_columns=["age"])
    assert data.num_features == 1


@pytest.mark.parametrize(
    ("rows", "options", "parts"),
    [
        ([{"x": "1e999", "label": 1}], {}, ["t.csv, line 2", "x: '1e999' is not a finite number"]),
        ([{"x": 1, "label": "red"}], {}, ["t.csv, line 2", "label: 'red' is not a finite number", "label_column"]),
        ([{"x": 1, "y": 1}], {}, ["t.csv", "no column 'label'", "label_column must be one of: x, y"]),
        (
            [{"x": 1, "label": 1}],
            {"feature_columns": ["xx"]},
            ["no column 'xx'", "did you mean 'x'"],
        ),
        ([{"x": 1, "label": 1}], {"feature_columns": []}, ["feature_columns=[]"]),
        ([{"x": 1, "label": 1}], {"feature_columns": ["x", "x"]}, ["feature_columns: 'x' occurs more than once"]),
        ([{"x": 1, "label": 1}], {"feature_columns": ["label"]}, ["feature_columns: 'label' is a label_column"]),
        ([{"label": 1}], {}, ["t.csv: no feature column (all columns are named by label_column)"]),
        (
            [{"x": 1, "label": ""}],
            {"target": "class"},
            ["t.csv, line 2", "the label in the column 'label' (label_column) is missing"],
        ),
        ([{"x": 1, "label": "a"}], {"target": "class"}, ["are all 'a' (at least two classes are needed)"]),
        (
            [{"x": 1, "label": 1}],
            {"target": "class", "label_column": ["x", "x"]},
            ["label_column: 'x' occurs more than once"],
        ),
        ([{"x": 1, "label": 1}], {"label_separator": ","}, ["label_separator=',': has no effect with target=number"]),
        ([{"x": 1, "label": 1}], {"label_column": []}, ["label_column=[]"]),
        ([{"x": 1, "label": 1}], {"target": "colour"}, ["target='colour' must be 'number' or 'class'"]),
        ([{"x": 1, "label": 1}], {"val_fraction": 1.0}, ["val_fraction=1.0 must be more than 0 and less than 1"]),
    ],
)
def test_errors(write, rows, options, parts):
    message = refused(write("t.csv", rows), **options)
    for part in parts:
        assert part in message


def test_row_with_too_many_values_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("x,label\n1,2\n1,5,2\n")
    assert "t.csv, line 3: 3 values, more than the 2 columns of the header" in refused(str(tmp_path / "t.csv"))


def test_class_absent_from_training_is_refused(write):
    train = write("t.csv", [{"x": 1, "label": "a"}, {"x": 2, "label": "b"}])
    message = refused(train, val_files=write("v.csv", [{"x": 1, "label": "c"}]), target="class")
    assert "v.csv, line 2: the label 'c' in the column 'label' (label_column) does not occur in the training" in message


def test_fractional_number_is_refused_as_class(write):
    message = refused(write("t.jsonl", [{"x": 1, "label": 0.5}, {"x": 1, "label": 1.5}]), target="class")
    assert "t.jsonl, line 1: the column 'label'" in message
    assert "not a number (0.5); to predict numbers, use --task=regression" in message


def test_table_without_rows_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("x,label\n")
    assert f"{tmp_path / 't.csv'}: no rows" in refused(str(tmp_path / "t.csv"))
    assert "train_files: no rows" in refused(str(tmp_path / "t.csv"), feature_columns=["x"])


def test_file_shared_by_splits_is_refused(write):
    file = write("t.csv", ROWS)
    assert f"test_files: {file} is in train_files as well" in refused(file, test_files=file)


def test_empty_validation_split_is_reported_on_use(write):
    data = TableFilesDataModule(write("t.csv", ROWS), val_fraction=0.05)
    data.setup()
    with pytest.raises(DataError, match=r"no rows for validation \(name files with val_files"):
        data.val_dataloader()


def test_properties_of_the_other_target_are_refused(write):
    data = TableFilesDataModule(write("t.csv", ROWS))
    with pytest.raises(UserError, match="target=number: must be 'class'"):
        _ = data.num_classes
    data = TableFilesDataModule(write("t.csv", ROWS), target="class")
    with pytest.raises(UserError, match="target=class: must be 'number'"):
        _ = data.target_mean


# Suspicious and extra columns


def test_pandas_index_is_left_out_with_warning(tmp_path):
    (tmp_path / "t.csv").write_text(",x,label\n" + "".join(f"{n},{n % 3},{n % 2}\n" for n in range(30)))
    data = TableFilesDataModule(str(tmp_path / "t.csv"))
    with pytest.warns(UserWarning, match=r"t.csv: the column without a name left out as the row index that pandas"):
        assert data.feature_names == ["x"]


def test_columns_without_information_are_reported_in_one_line(write):
    rows = [
        {"x": n % 3, "one": 3, "two": 0.5, "none": None, "some": 1 if n else None, "label": n % 5} for n in range(30)
    ]
    with pytest.warns(UserWarning, match="columns without information") as caught:
        _ = TableFilesDataModule(write("t.csv", rows)).tables
    assert [str(each.message) for each in caught] == [
        "columns without information in the training data: empty 'none'; constant 'one' (3), 'two' (0.5) "
        "(feature_columns leaves them out)"
    ]


def test_numbers_as_classes_are_reported(write):
    rows = [{"x": n % 3, "label": n % 30 + 18} for n in range(300)]
    with pytest.warns(UserWarning, match=r"^the 30 different whole numbers in the column 'label' .* --task=regression"):
        _ = TableFilesDataModule(write("t.csv", rows), target="class").tables


def test_column_that_counts_rows_is_reported(write):
    rows = [{"index": n, "x": n % 3, "label": n} for n in range(1, 31)]
    with pytest.warns(UserWarning, match="the column 'index' counts the rows"):
        assert TableFilesDataModule(write("t.csv", rows)).feature_names == ["index", "x"]


@pytest.mark.parametrize("name", ["v.csv", "v.parquet", "v.jsonl"])
def test_extra_column_of_another_file_is_refused(write, name):
    train = write("t.csv", [{"x": n, "label": n} for n in range(4)])
    other = write(name, [{"x": 1, "label": 1, "more": 2}])
    message = refused(train, val_files=other)
    assert f"{name}" in message
    assert "the column 'more' is not in" in message
    assert TableFilesDataModule(train, val_files=other, feature_columns=["x"]).feature_names == ["x"]


def test_extra_key_of_a_later_json_row_is_refused(write):
    message = refused(write("t.jsonl", [{"x": 1, "label": 1}, {"x": 1, "label": 2, "more": 3}]))
    assert "t.jsonl, line 2: the column 'more' is not in" in message


def test_constant_target_is_refused(write):
    message = refused(write("t.csv", [{"x": n, "label": 7} for n in range(5)]))
    assert message == "the numbers in the column 'label' of the training data are all 7: nothing to learn"


def test_large_numbers_keep_their_precision(write):
    start = 1.7e9
    rows = [{"seen": start + n, "label": start - n} for n in range(10)]
    data = TableFilesDataModule(write("t.csv", rows), val_files=write("v.csv", rows), feature_columns=["seen"])
    data.setup()
    examples = data.split_datasets["train"]
    assert examples.labels[:, 0].tolist() == [start - n for n in range(10)]
    expected = torch.arange(10) / torch.arange(10).double().std(correction=0)
    torch.testing.assert_close(examples.inputs[:, 0].double() - examples.inputs[0, 0], expected, atol=1e-5, rtol=0)


def test_delimiter_is_part_of_description(tmp_path):
    (tmp_path / "t.csv").write_text("x;label\n1;2\n2;3\n")
    data = TableFilesDataModule(str(tmp_path / "t.csv"), delimiter=";")
    assert data.feature_names == ["x"]
    assert data.description()["delimiter"] == ";"
