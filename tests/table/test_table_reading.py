"""Reader of table rows for prediction."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_plugins.table import TableInputAdapter, TableReader
from perceiver_plugins.table.columns import Columns
from perceiver_registry import UserError

COLUMNS = {"names": ["age", "bmi", "s1"], "mean": [50.0, 25.0, 0.0], "std": [10.0, 5.0, 0.5]}


@pytest.fixture
def reader() -> TableReader:
    return TableReader({"columns": COLUMNS}, TableInputAdapter(3, 8))


@pytest.mark.parametrize("name", ["people.csv", "people.tsv", "people.jsonl", "people.parquet", "people.csv.gz"])
def test_each_row_of_a_file_is_one_input(reader, write, name):
    file = write(
        name, [{"s1": 1.5, "note": "x", "age": 20, "bmi": 30.0}, {"s1": None, "note": "y", "age": 60, "bmi": 20.5}]
    )
    sources = reader.expand(["age=1", file])
    assert sources == ["age=1", f"{file}:1", f"{file}:2"]
    np.testing.assert_equal(reader.read(sources[1]), [20, 30, 1.5])
    np.testing.assert_equal(reader.read(sources[2]), [60, 20.5, math.nan])


def test_folder_is_expanded_to_its_files(reader, write, tmp_path):
    rows = [{"age": 1, "bmi": 2, "s1": 3}]
    files = [write("a.csv", rows), write("b.jsonl", rows)]
    assert reader.expand([str(tmp_path)]) == [f"{file}:1" for file in files]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("age=20,bmi=30,s1=1.5", [20, 30, 1.5]),
        ("s1 = -2e1, age=7", [7, math.nan, -20]),
        ("bmi=", [math.nan] * 3),
    ],
)
def test_rows_given_as_text(reader, written, expected):
    assert reader.expand([written]) == [written]
    np.testing.assert_equal(reader.read(written), expected)


def test_file_name_may_contain_equals_sign(reader, write):
    file = write("age=2.csv", [{"age": 1, "bmi": 2, "s1": 3}])
    assert reader.expand([file]) == [f"{file}:1"]


def test_batches_are_standardised(reader):
    examples = [reader.read("age=20,bmi=30,s1=1.5"), reader.read("age=55")]
    batch = reader.collate(examples)
    expected = torch.tensor([[-3.0, 1.0, 3.0], [0.5, math.nan, math.nan]])
    torch.testing.assert_close(batch["inputs"], expected, equal_nan=True)
    assert reader.tokens(examples[0]) == COLUMNS["names"]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("agee=3", ["'agee=3'", "no column 'agee'", "did you mean 'age'"]),
        ("age=old,bmi=fat", ["'age=old,bmi=fat'", "age: 'old' is not a finite", "bmi: 'fat' is not a finite"]),
        ("age=3,4", ["no column '4'", "age, bmi, s1"]),
        ("age=3,bmi", ["'age=3,bmi': 'bmi' has no value"]),
        ("age=3,bmi=4,age=5", ["'age' occurs more than once"]),
        ("people.csv", ["file people.csv not found"]),
    ],
)
def test_errors(reader, given, parts):
    with pytest.raises(UserError) as caught:
        [reader.read(source) for source in reader.expand([given])]
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_unreadable_file_does_not_prevent_reading_others(reader, write, tmp_path):
    good = write("good.csv", [{"age": 1, "bmi": 2, "s1": 3}])
    lacking = write("lacking.csv", [{"age": 1, "bmi": 2}])
    damaged = tmp_path / "damaged.csv"
    damaged.write_bytes(b"age,bmi,s1\n4,5,6\n7,\xff,9\n")
    sources = reader.expand([lacking, str(damaged), good])
    assert sources == [lacking, f"{damaged}:1", str(damaged), f"{good}:1"]
    with pytest.raises(UserError, match=r"lacking\.csv: no column 's1'; the model's columns must be one of: age, bmi"):
        reader.read(sources[0])
    with pytest.raises(UserError, match=r"damaged\.csv: not UTF-8 text"):
        reader.read(sources[2])
    np.testing.assert_equal(reader.read(sources[1]), [4, 5, 6])
    np.testing.assert_equal(reader.read(sources[3]), [1, 2, 3])


def test_invalid_row_does_not_prevent_reading_others(reader, write):
    first, second = reader.expand([write("t.csv", [{"age": "old", "bmi": 1, "s1": 2}, {"age": 3, "bmi": 1, "s1": 2}])])
    with pytest.raises(UserError, match=r"t\.csv, line 2: age: 'old' is not a finite number"):
        reader.read(first)
    np.testing.assert_equal(reader.read(second), [3, 1, 2])


def test_checkpoint_without_columns_is_refused():
    with pytest.raises(UserError, match="checkpoint: its data has no columns"):
        TableReader({}, TableInputAdapter(3, 8))


def test_attention_is_drawn_as_bar_chart(reader, tmp_path):
    example = reader.read("age=20,bmi=30")
    whole = torch.tensor([1.0, 0.0, 0.0])

    def blue(weights, name) -> np.ndarray:
        """Number of pixels in the bars' blue, per row of the image."""
        path = reader.draw_attention("age=20,bmi=30", example, weights, tmp_path / name)
        assert path == tmp_path / f"{name}.png"
        red, green, blue = np.asarray(Image.open(path).convert("RGB"), dtype=float).transpose(2, 0, 1)
        return ((blue > 1.3 * green) & (green > 1.3 * red)).sum(axis=1)

    first, third = blue([whole], "a.b"), blue([whole.flip(0)], "c")
    # The first column is above the third, and both bars have the same length.
    assert first.nonzero()[0].max() < third.nonzero()[0].min()
    assert first.max() == pytest.approx(third.max(), abs=2)
    both = blue([whole, whole.flip(0)], "d")
    assert both.nonzero()[0].min() < both.nonzero()[0].max() - len(both) // 3


def test_columns_from_plain_data():
    columns = Columns(**COLUMNS)
    torch.testing.assert_close(columns.standardise(np.array([50.0, 30.0, 0.5])), torch.tensor([0.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": "abc"}, "names: must be a list"),
        ({"names": ["age", "age", "city"]}, "names: must be a list of different names"),
        ({"names": None}, "names: must be a list"),
        ({"kinds": ["category"]}, "kinds: must have"),
        ({"kinds": {"city": 5}}, "kinds: must have"),
        ({"kinds": {"city": "sound"}}, "unknown kind 'sound'"),
        ({"categories": {}}, "no categories of 'city'"),
        ({"categories": ["Rome"]}, "categories: must be lists"),
        ({"categories": {"city": 2}}, "those of 'city' must be"),
        ({"categories": {"city": ["Rome", "Rome"]}}, "those of 'city' must be"),
        ({"categories": {"city": ["Rome", 1]}}, "those of 'city' must be"),
        ({"categories": {"city": ["Rome"]}}, "does not fit the model's num_categories"),
        ({"mean": [0.0]}, "mean: must be a list of 2 numbers"),
        ({"mean": [0.0, float("nan")]}, "mean: must be a list of 2 numbers"),
        ({"mean": [0.0, 10**400]}, "mean: must be a list of 2 numbers"),
        ({"std": [1.0, 0.0]}, "std: must be greater than 0"),
        ({"quantiles": [1.0]}, "quantiles: must be lists"),
        ({"quantiles": {"age": [2.0, 1.0]}}, "those of 'age' must be"),
        ({"quantiles": {"age": "12"}}, "those of 'age' must be"),
        ({"scale": 1}, "no unknown entries"),
    ],
)
def test_invalid_columns_of_checkpoint_are_refused(change, message):
    columns = {
        "names": ["age", "bmi", "city"],
        "mean": [0.0, 0.0],
        "std": [1.0, 1.0],
        "kinds": {"city": "category"},
        "categories": {"city": ["Rome", "Oslo"]},
    }
    adapter = TableInputAdapter(2, 8, num_categories=[2])
    TableReader({"columns": columns}, adapter)
    with pytest.raises(UserError, match=rf"checkpoint: columns: .*{message}"):
        TableReader({"columns": columns | change}, adapter)
