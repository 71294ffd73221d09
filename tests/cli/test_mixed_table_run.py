"""Runs on tables of numbers, categories and dates: training, prediction, export, and checkpoints of older versions."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml

from perceiver_cli.predictions import kept_texts
from perceiver_plugins.sdk.prediction.table_inputs import TableRow

pytestmark = pytest.mark.slow

CITIES = ("Ulm", "Bonn", "Aalen")


def rows_of(count: int) -> list[dict]:
    return [
        {
            "id": f"p{number}",
            "age": number % 9,
            "city": CITIES[number % 3],
            "seen": f"2024-01-{number % 28 + 1:02}",
            "label": "yes" if number % 3 else "no",
        }
        for number in range(count)
    ]


@pytest.fixture
def trained(perceiver, tmp_path, caplog):
    """Train a model and return its source."""
    with (tmp_path / "train.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows_of(1)[0]))
        writer.writeheader()
        writer.writerows(rows_of(60))
    flags = ["--trainer.max_epochs=1", "--model.num_latents=2", "--data.feature_columns=[age,city,seen]"]
    result = perceiver("fit", "--task=classification", f"--data={tmp_path / 'train.csv'}", *flags)
    assert result.code == 0, result.err
    assert "columns: 1 number; dates: seen; categories: city (3)" in caplog.text
    return "best"


def test_model_of_a_mixed_table_predicts_and_exports(perceiver, trained, tmp_path):
    rows = [row | {"city": city} for row, city in zip(rows_of(3), ("Ulm", "Wangen", None), strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "new.parquet")
    predict = ("predict", f"--ckpt_path={trained}", str(tmp_path / "new.parquet"), "--keep_columns=[id,label]")
    with pytest.warns(UserWarning, match="'city': 1 value is not among the categories of the training data: 'Wangen'"):
        result = perceiver(*predict, "--format=csv")
    assert result.code == 0, result.err
    found = list(csv.DictReader(result.out.splitlines()))
    assert [(row["id"], row["label (input)"]) for row in found] == [(row["id"], row["label"]) for row in rows]
    assert {row["label"] for row in found} <= {"yes", "no"}
    assert list(found[0])[:4] == ["id", "label (input)", "input", "label"]
    lines = [json.loads(line) for line in perceiver(*predict, "age=3", "--format=jsonl").out.splitlines()]
    assert [line["id"] for line in lines] == ["p0", "p1", "p2", None]
    result = perceiver(*predict[:3], "--keep_columns=[ids]")
    assert result.code == 1
    assert "no column 'ids'; keep_columns must be one of: id, age" in result.err
    result = perceiver("embed", *predict[1:], "--output=v.npy")
    assert (result.code, "--keep_columns: .npy has no other columns" in result.err) == (2, True)

    result = perceiver("export", predict[1], f"--output={tmp_path / 'm.pt2'}")
    assert result.code == 0, result.err
    assert "category_ids  int64    (batch, 1)" in result.out + result.err


def test_kept_columns_have_names_of_their_own():
    row = {"label": "a", "label (input)": "b", "tags": ["é", {"x": None}], "day": datetime.date(2024, 1, 2)}
    prediction = {"input": TableRow("t.csv:1", ("t.csv, line 2", row)), "label": "c"}
    assert kept_texts(prediction, tuple(row), {}) == {
        "label (input) (input)": "a",
        "label (input)": "b",
        "tags": '["é", {"x": null}]',
        "day": "2024-01-02",
    }


def test_checkpoint_without_fields_of_categories_is_used(perceiver, tmp_path):
    """A checkpoint of a version that read only numbers predicts, resumes and initialises encoders."""
    file = tmp_path / "numbers.csv"
    file.write_text("\n".join(["x,y,label", *(f"{number},{number % 7},{number % 5}" for number in range(40))]))
    fit = ("fit", "--task=regression", f"--data={file}", "--model.num_latents=2")
    assert perceiver(*fit, "--trainer.max_epochs=1").code == 0
    (path,) = Path().glob("logs/*/version_0/checkpoints/last.ckpt")
    content = torch.load(path, weights_only=True)
    new = {"num_categories", "category_dropout", "columns"}
    assert list(content["perceiver"]["data"]["columns"]) == ["names", "mean", "std"]
    assert content["perceiver"]["model"]["encoder"].keys() >= new
    for encoder in (content["perceiver"]["model"]["encoder"], content["perceiver"]["run"]["model"]["encoder"]):
        for name in new:
            del encoder[name]
    torch.save(content, "old.ckpt")
    rows = ("x=1,y=2", "--format=csv")
    expected = perceiver("predict", f"--ckpt_path={path}", *rows)
    assert expected.code == 0, expected.err
    assert perceiver("predict", "--ckpt_path=old.ckpt", *rows).out == expected.out
    for flags in (("fit", "--ckpt_path=old.ckpt", "--trainer.max_epochs=2"), (*fit, "--model.encoder.params=old.ckpt")):
        result = perceiver(*flags, "--print_config")
        assert result.code == 0, result.err
        assert yaml.safe_load(result.out)["model"]["encoder"]["num_categories"] is None
