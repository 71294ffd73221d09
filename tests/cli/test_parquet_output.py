"""Parquet files of predictions have the values of JSON lines."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perceiver_cli import parquet
from perceiver_cli.predictions import choose_output
from perceiver_plugins.sdk.prediction.table_inputs import TableRow
from perceiver_registry import UserError


def written(file: str, predictions: list[dict[str, Any]], kept: tuple[str, ...] = ()) -> Path:
    output, _ = choose_output(file, None, False)
    with replace(output, kept=kept).opened() as write:
        write(None, iter(predictions))
    return Path(file)


def json_lines(predictions: list[dict[str, Any]], kept: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the predictions as read from JSON lines; None where one lacks an entry."""
    text = written("expected.jsonl", predictions, kept).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n")[:-1]]
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


@pytest.fixture(autouse=True)
def small_row_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 150)


def row_of(number: int, **cells: Any) -> TableRow:
    return TableRow(f"rows.jsonl:{number}", (f"rows.jsonl, line {number}", cells))


def test_values_are_those_of_json_lines():
    best = [{"label": "rain, ü", "probability": 0.1 + 0.2}, {"label": "a\x1b\u202e\n\u2028", "probability": 5e-324}]
    predictions = [
        {"input": "first", "labels": [], "label": None, "count": 1, "flow": np.float32([[0.1, 3.4e38]])},
        *({"input": f"text {number}", "labels": [], "label": None, "count": 2} for number in range(5)),
        {"input": "last", "labels": best, "label": "ß", "count": 2.5, "extra": True},
        {"input": "", "labels": best[:1], "label": "", "count": -(2**50), "flow": np.float32([[1e-45], [2]])},
    ]
    table = pq.read_table(written("p.parquet", predictions), page_checksum_verification=True)
    assert pq.ParquetFile("p.parquet").num_row_groups > 2
    assert table.to_pylist() == json_lines(predictions)
    types = {name: table.schema.field(name).type for name in table.column_names}
    assert types["count"] == pa.float64()
    assert types["label"] == pa.string()
    assert types["labels"].value_type == pa.struct([("label", pa.string()), ("probability", pa.float64())])
    assert [path.name for path in sorted(Path().iterdir())] == ["expected.jsonl", "p.parquet"]


def test_kept_columns_have_their_types():
    predictions = [
        {"input": row_of(1, id=7, label="gold", day=datetime.date(2024, 1, 2), tags=["x"]), "label": "a"},
        {"input": row_of(2, id=None, label="tin", day=None, tags=[]), "label": "b"},
    ]
    kept = ("id", "label", "day", "tags", "missing")
    table = pq.read_table(written("p.parquet", predictions, kept))
    assert table.column_names == ["id", "label (input)", "day", "tags", "missing", "input", "label"]
    assert table.to_pylist() == json_lines(predictions, kept)
    assert table.schema.field("id").type == pa.int64()


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    "values", [[1, "one"], [True, 2], [{}, None], [[1], {"a": 1}], [2**70, 1], [2**60, 0.5]], ids=repr
)
def test_values_without_a_common_type_are_written_as_json(values, order, capsys):
    padding = [{"input": "x" * 200, "label": "a"}] * 2  # the values are in different row groups
    cells = [{"input": row_of(1, cell=value), "label": "ü"} for value in values[::order]]
    predictions = [cells[0], *padding, cells[1]]
    expected = json_lines(predictions, ("cell",))
    found = pq.read_table(written("p.parquet", predictions, ("cell",))).to_pylist()
    assert [row | {"cell": row["cell"] and json.loads(row["cell"])} for row in found] == expected
    assert capsys.readouterr().err == (
        "perceiver: p.parquet: column 'cell' has values that no type of Parquet has in common: written as JSON\n"
    )


def test_bytes_that_are_not_utf8_are_escaped():
    prediction = {"input": "stra\udcdfe.png", "top": [{"\udcdf": "\udcdf"}]}
    (row,) = pq.read_table(written("p.parquet", [prediction])).to_pylist()
    assert row == {"input": "stra\\udcdfe.png", "top": [{"\\udcdf": "\\udcdf"}]}


def test_failed_runs_leave_no_file():
    def fail():
        yield {"input": "a"}
        raise UserError("stop")

    output, _ = choose_output("p.parquet", None, False)
    with pytest.raises(UserError, match="stop"), output.opened() as write:
        write(None, fail())
    assert not list(Path().iterdir())
    assert pq.read_table(written("empty.parquet", [])).to_pylist() == []


def test_format_needs_a_file():
    with pytest.raises(UserError, match=r"^--format=parquet: needs a file \(add --output=FILE.parquet\)$"):
        choose_output(None, "parquet", False)


@pytest.mark.slow
def test_command_writes_rows_of_a_table(text_classifier, perceiver):
    Path("in.csv").write_text("id,text\n7,näht 1 gut\n8,schlecht\n", encoding="utf-8")
    flags = ["predict", f"--ckpt_path={text_classifier.last}", "in.csv", "--keep_columns=[id]"]
    for output in (["--output=p.jsonl"], ["--output=p.parquet"], ["--output=p.out", "--format=parquet"]):
        assert perceiver(*flags, *output).code == 0
    expected = [json.loads(line) for line in Path("p.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["input"] for row in expected] == ["in.csv:1", "in.csv:2"]
    for file in ("p.parquet", "p.out"):
        assert pq.read_table(file).to_pylist() == expected
