"""Tables of numbers, booleans, dates and categories: kinds of columns, categories, scaling."""

from __future__ import annotations

import datetime
import json
import math
import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.preprocessing import QuantileTransformer

from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table import TableEncoderConfig, TableFilesDataModule, TableInputAdapter, TableReader
from perceiver_plugins.table.kinds import infer_kind
from perceiver_plugins.table.scaling import fit_quantiles, to_normal
from perceiver_registry import UserError

ROWS = [
    {"age": 31, "city": "Ulm", "smoker": True, "seen": "2024-01-01", "label": 1.0},
    {"age": 47, "city": "Bonn", "smoker": False, "seen": "2024-01-03", "label": 2.0},
    {"age": None, "city": None, "smoker": None, "seen": None, "label": 3.0},
    {"age": 61, "city": "Ulm", "smoker": False, "seen": "2024-01-05", "label": 4.0},
]
KINDS = {"city": "category", "smoker": "boolean", "seen": "date"}


def refused(*args, **options) -> str:
    """Return the message of the error that the data module raises, in one line."""
    with pytest.raises(UserError) as caught:
        TableFilesDataModule(*args, **options).setup()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Kinds


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, "", "NA"], "number"),
        (["1", "2.5", "", "x"], "number"),
        (["1e999"], "number"),
        (["1", "x", "y"], "category"),
        ([1, 0, 1], "number"),
        ([True, False, None], "boolean"),
        (["true", "False", ""], "boolean"),
        (["true", "no"], "category"),
        (["2024-01-31", "2024-02-01", "soon"], "date"),
        (["2024-01-31", "2024-02-01 10:00"], "datetime"),
        ([datetime.date(2024, 1, 31)], "date"),
        (["20240131"], "number"),
        (["a red house", "a blue house"] * 20, "category"),
        ([f"the house number {number}" for number in range(30)], "text"),
        ([f"name{number}" for number in range(30)], "category"),
        (["A12", "B7", "1_000"], "category"),
        (["cat.png", "x/dog.JPG", None], "image"),
    ],
)
def test_kinds_are_inferred(values, kind):
    assert infer_kind(values) == kind


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
def test_formats_are_read_alike(write, name, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr("perceiver_plugins.table.files.rank_zero_info", lines.append)
    data = TableFilesDataModule(write(name, ROWS), val_files=write(f"v-{name}", ROWS[1:2]))
    assert data.tables.kinds == KINDS
    assert data.columns.positions == [
        "age",
        "smoker",
        *(f"seen: {part}" for part in ("days", "sin of year", "cos of year", "sin of week", "cos of week")),
        "city",
    ]
    assert (data.num_features, data.num_categories, data.columns.categories) == (7, [2], {"city": ["Bonn", "Ulm"]})
    data.setup()
    batch = data.split_datasets["train"].batch(0, np.array([3, 2, 1, 0]))
    assert batch["category_ids"].tolist() == [[3], [0], [2], [3]]
    assert batch["category_ids"].dtype == torch.int64
    ages, smokers, days = batch["inputs"].T[:3]
    np.testing.assert_allclose(ages * np.std([31, 47, 61]) + np.mean([31, 47, 61]), [61, math.nan, 47, 31], rtol=1e-6)
    np.testing.assert_allclose(smokers, [-(0.5**0.5), math.nan, -(0.5**0.5), 2**0.5], rtol=1e-6)
    np.testing.assert_allclose(days, [1.5**0.5, math.nan, 0, -(1.5**0.5)], atol=1e-6)
    assert lines == ["columns: 1 number; booleans: smoker; dates: seen; categories: city (2)"]


def test_types_of_pandas_are_kept(tmp_path):
    frame = pd.DataFrame(
        {
            "code": pd.Categorical([3, 1, 3, 2]),
            "size": pd.array([1, 2, None, 4], dtype="Int64"),
            "open": pd.array([True, None, False, True], dtype="boolean"),
            "time": pd.to_datetime(["2024-01-01 06:00", "2024-01-02 00:00", None, "2024-01-03 00:00"]),
            "name": pd.array(["a", "b", None, "a"], dtype="string"),
            "label": [1.0, 2.0, 3.0, 4.0],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    data = TableFilesDataModule(str(tmp_path / "t.parquet"), val_fraction=0.25)
    assert data.tables.kinds == {"code": "category", "open": "boolean", "time": "datetime", "name": "category"}
    codes = data.tables.splits["train"].features[:, -2].astype(int) - 2
    kept = data.columns.categories["code"]
    assert set(kept) <= {"1", "2", "3"}
    labels = data.tables.splits["train"].labels[:, 0].astype(int) - 1
    assert [int(kept[code]) for code in codes] == [[3, 1, 3, 2][row] for row in labels]


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"categorical_columns": ["age"]}, KINDS | {"age": "category"}),
        ({"categorical_columns": ["seen", "smoker"]}, dict.fromkeys(["city", "smoker", "seen"], "category")),
        ({"date_columns": ["seen"], "feature_columns": ["seen", "age"]}, {"seen": "date"}),
    ],
)
def test_flags_choose_kinds(write, options, kinds):
    assert TableFilesDataModule(write("t.jsonl", ROWS), **options).tables.kinds == kinds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"categorical_columns": ["town"]}, "categorical_columns: 'town' is not a feature column"),
        ({"categorical_columns": ["label"]}, "categorical_columns: 'label' is not a feature column"),
        ({"date_columns": ["age"], "numeric_columns": ["age"]}, "date_columns: 'age' is in numeric_columns as well"),
        ({"numeric_columns": ["city"]}, "t.csv, line 2: city: 'Ulm' is not a finite number (feature_columns chooses"),
        ({"date_columns": ["age"]}, "t.csv, line 2: age: '31' is not a date such as 2024-03-31"),
        ({"scaling": "none"}, "scaling='none' must be 'standard' or 'quantile'"),
    ],
)
def test_invalid_flags(write, options, message):
    assert message in refused(write("t.csv", ROWS), **options)


def test_unreadable_cell_does_not_change_the_kind(write):
    rows = [{"x": number, "day": f"2024-01-{number:02}", "label": number} for number in range(1, 20)]
    for column, text, message in (
        ("x", "12a", "x: '12a' is not a finite"),
        ("day", "May 1", "day: 'May 1' is not a date"),
    ):
        changed = [row | ({column: text} if row["label"] == 7 else {}) for row in rows]
        assert f"t.csv, line 8: {message}" in refused(write("t.csv", changed))


def test_texts_may_be_categories(write):
    rows = [{"x": 1, "note": f"the patient in room {number}", "label": number} for number in range(30)]
    with pytest.warns(UserWarning, match="'note' has 27 different values in 27 training rows"):
        data = TableFilesDataModule(write("t.csv", rows), categorical_columns=["note"]).tables
    assert len(data.categories["note"]) == 27


# Categories


def test_categories_of_other_splits_are_unseen(write):
    rows = [{"city": f"city {number % 7}", "label": number} for number in range(14)]
    others = [{"city": city, "label": 1} for city in ("city 0", "city 8", "", "city 8", "city 9")]
    data = TableFilesDataModule(write("t.csv", rows), val_files=write("v.csv", others))
    with pytest.warns(UserWarning, match=r"'city': 3 values are not among .*: 'city 8' \(2\), 'city 9' \(1\)"):
        data.setup()
    assert data.columns.categories == {"city": [f"city {number}" for number in range(7)]}
    assert data.split_datasets["validation"].category_ids.T.tolist() == [[2, 1, 0, 1, 1]]


def test_categories_only_in_held_out_rows_are_unseen(write):
    rows = [{"city": f"city {number}", "label": number} for number in range(10)]
    data = TableFilesDataModule(write("t.csv", rows), val_fraction=0.3)
    with pytest.warns(UserWarning, match="'city': 3 values are not among"):
        data.setup()
    assert len(data.columns.categories["city"]) == 7
    assert data.split_datasets["validation"].category_ids.unique().tolist() == [1]
    assert sorted(data.split_datasets["train"].category_ids[:, 0].tolist()) == list(range(2, 9))


def test_model_knows_its_categories(write):
    trained = TableFilesDataModule(write("t.csv", ROWS), val_files=write("v.csv", ROWS[:1]))
    description = json.loads(json.dumps(trained.description()))
    rows = [row | {"city": city} for row, city in zip(ROWS, ("Ulm", "Aalen", "Bonn"), strict=False)]
    for options, split in (
        ({"test_files": write("n.csv", rows)}, "test"),
        ({"train_files": write("m.csv", rows)}, "train"),
    ):
        data = TableFilesDataModule(**options, val_fraction=0.01)
        data.known, data.inherited = (description | {"target_mean": [0]} if split == "test" else {}), description
        with pytest.warns(UserWarning, match=r"'Aalen' \(1\)"):
            data.setup()
        assert data.num_categories == [2]
        assert data.split_datasets[split].category_ids.unique().tolist() == [1, 2, 3]


@pytest.mark.parametrize("split", ["train", "test"])
def test_other_order_of_columns_does_not_change_inputs(split, write):
    rows = [{"a": number, "b": number**2, "label": number} for number in range(9)]
    trained = TableFilesDataModule(write("t.csv", rows), val_files=write("v.csv", rows[:1]))
    reordered = write("n.csv", [{name: row[name] for name in ("label", "b", "a")} for row in rows[4:]])

    def create(**options) -> TableFilesDataModule:
        data = TableFilesDataModule(**{f"{split}_files": reordered, "val_files": write("v.csv", rows[:1]), **options})
        data.inherited = trained.description()
        data.known = data.inherited if split == "test" else {}
        return data

    trained.setup()
    for options in ({}, {"feature_columns": ["b", "a"]}):
        data = create(**options)
        data.setup()
        assert data.columns == trained.columns
        expected = trained.split_datasets["train"].inputs[4:]
        torch.testing.assert_close(data.split_datasets[split].inputs, expected, rtol=0, atol=0)
    for options, message in (
        ({"feature_columns": ["b"]}, r"feature_columns: 'a' is missing \(the model's columns: a, b\)"),
        ({"categorical_columns": ["b"]}, "categorical_columns: 'b' is a number in the trained model"),
        ({"scaling": "quantile"}, "scaling=quantile: the model was trained with standard"),
    ):
        with pytest.raises(UserError, match=message):
            create(**options).setup()


def test_reader_reads_rows_as_in_training(write):
    data = TableFilesDataModule(write("t.csv", ROWS), val_files=write("v.csv", ROWS[:1]), scaling="quantile")
    data.setup()
    adapter = TableInputAdapter(data.num_features, 8, num_categories=data.num_categories)
    adapter.check_data(data)
    reader = TableReader(json.loads(json.dumps(data.description())), adapter)
    file = write("n.jsonl", ROWS)
    batch = reader.collate([reader.read(source) for source in reader.expand([file])])
    expected = data.split_datasets["train"].batch(0, np.arange(len(ROWS)))
    torch.testing.assert_close(batch["inputs"], expected["inputs"], equal_nan=True, rtol=0, atol=0)
    assert torch.equal(batch["category_ids"], expected["category_ids"])
    assert reader.tokens(reader.read("city=Ulm")) == data.columns.positions
    with pytest.raises(DataError, match=r"seen: 'May' is not a date.* \(the model chooses"):
        reader.read("seen=May")


def test_reader_reports_unseen_categories_once(write, recwarn):
    data = TableFilesDataModule(write("t.csv", ROWS), val_files=write("v.csv", ROWS[:1]))
    reader = TableReader(data.description(), TableInputAdapter(7, 8, num_categories=[2]))
    recwarn.clear()
    assert [reader.read(f"city={city}")[-1] for city in ("Ulm", "Aalen", "Aalen", "", "Wangen")] == [3, 1, 1, 0, 1]
    reader.finish()
    reader.finish()
    (warning,) = recwarn
    assert "'city': 3 values are not among the categories of the training data: 'Aalen' (2)" in str(warning.message)


# Adapter


@pytest.fixture
def adapter(randomise) -> TableInputAdapter:
    """Adapter of odd sizes with random weights."""
    config = TableEncoderConfig(num_features=2, num_input_channels=7, num_categories=[3, 1], number_dropout=0.3)
    return randomise(TableInputAdapter.from_config(config))


def test_categories_are_embedded_by_column(adapter):
    ids = torch.tensor([[0, 0], [1, 1], [2, 2], [4, 0], [5, 3], [-1, 2]])
    x = adapter.eval()({"inputs": torch.randn(6, 2), "category_ids": ids}).x[:, 2:] - adapter.columns[2:]
    unseen, missing = 0, None  # the first row of a column is that of unseen categories
    rows = [[missing, missing], [unseen, unseen], [1, 1], [3, missing], [unseen, unseen], [unseen, 1]]
    for example, row in enumerate(rows):
        for column, (index, first) in enumerate(zip(row, (0, 4), strict=True)):
            expected = adapter.missing if index is None else adapter.categories[first + index]
            torch.testing.assert_close(x[example, column], expected)


def test_unseen_categories_are_trained(randomise):
    config = TableEncoderConfig(num_features=0, num_input_channels=5, num_categories=[3], category_dropout=0.25)
    adapter = randomise(TableInputAdapter.from_config(config))
    batch = {"category_ids": torch.full((900, 1), 3)}
    assert torch.equal(adapter.eval()(batch).x, (adapter.categories[2] + adapter.columns).expand(900, 1, 5))
    x = adapter.train()(batch).x
    replaced = (x == adapter.categories[0] + adapter.columns).all(-1)
    assert replaced.float().mean().item() == pytest.approx(0.25, abs=0.05)
    x.sum().backward()
    assert adapter.categories.grad.abs().sum(1).bool().tolist() == [True, False, True, False]


def test_tables_of_numbers_keep_their_parameters_and_values():
    torch.manual_seed(3)
    adapter = TableInputAdapter.from_config(TableEncoderConfig(num_features=3, num_input_channels=4))
    torch.manual_seed(3)
    expected = [torch.empty(size).normal_(0.0, 0.02) for size in ((3, 4), (3, 4), (4,))]
    assert list(adapter.state_dict()) == ["weight", "columns", "missing"]
    for found, drawn in zip(adapter.state_dict().values(), expected, strict=True):
        assert torch.equal(found, drawn)


def test_other_batches_and_data_are_refused(adapter):
    with pytest.raises(KeyError, match="category_ids"):
        adapter({"inputs": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match=r"category_ids of shape \(2, 1\): must be .* with 2 columns"):
        adapter({"inputs": torch.zeros(2, 2), "category_ids": torch.zeros(2, 1, dtype=torch.int64)})

    class Data:
        num_features = 2
        num_categories = (3, 2)

    with pytest.raises(ValueError, match=r"num_categories=\(3, 2\) does not fit the model's num_categories=\[3, 1\]"):
        adapter.check_data(Data)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"num_features": 0}, "num_features=0: must be at least 1"),
        ({"num_categories": [-1]}, "num_categories=.*: must not be negative"),
        ({"category_dropout": 1.0}, "category_dropout=1.0: must be at least 0 and less than 1"),
    ],
)
def test_values_out_of_range_are_refused(options, rule):
    with pytest.raises(ValueError, match=rule):
        TableEncoderConfig(**options)


# Quantiles


def test_quantiles_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    columns = {
        "skewed": rng.lognormal(0, 2, 700),
        "rounded": rng.normal(0, 1, 700).round(1),
        "zeros": np.where(rng.random(700) < 0.6, 0.0, rng.exponential(1, 700)),
        "constant": np.full(700, 3.0),
        "missing": np.where(rng.random(700) < 0.3, np.nan, rng.normal(0, 9, 700)),
    }
    for name, column in columns.items():
        transformer = QuantileTransformer(n_quantiles=50, output_distribution="normal", subsample=None)
        transformer.fit(column[:, None])
        others = np.concatenate([column[:90] * 1.01 + 0.02, [-1e9, 1e9, np.nan], column[:50]])
        found = to_normal(others, fit_quantiles(column, 50))
        np.testing.assert_allclose(found, transformer.transform(others[:, None])[:, 0], atol=1e-5, err_msg=name)


def test_column_without_numbers_has_no_quantiles():
    assert fit_quantiles(np.full(3, np.nan)) == []
    np.testing.assert_equal(to_normal(np.array([1.0, np.nan]), []), [0.0, np.nan])


def test_quantile_scaling_is_standardised(write):
    numbers = [math.exp(random.Random(number).gauss(0, 2)) for number in range(60)]
    rows = [{"x": number, "flag": number > 1, "label": number} for number in numbers]
    data = TableFilesDataModule(write("t.jsonl", rows), val_files=write("v.jsonl", rows[:2]), scaling="quantile")
    data.setup()
    inputs = data.split_datasets["train"].inputs.double()
    torch.testing.assert_close(inputs.mean(0), torch.zeros(2).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(2).double(), atol=1e-6, rtol=0)
    assert data.columns.quantiles.keys() == {"x"}
    assert np.array_equal(np.argsort(inputs[:, 0].numpy()), np.argsort(numbers))


def test_dates_that_python_lacks_are_refused(tmp_path):
    file = tmp_path / "far.parquet"
    pq.write_table(pa.table({"seen": pa.array([0, 2**60], pa.timestamp("ms")), "label": [1, 2]}), file)
    assert "far.parquet, after row 0: cannot be read (" in refused(str(file))
