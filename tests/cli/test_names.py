"""Names that YAML takes for something else, and delimiters: in flags, in config files, and in predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from perceiver_cli.layers import ConfigLayer
from perceiver_cli.names import accepts_null, quote_names, refuse_other_scalars
from perceiver_registry import UserError

HINTS = {
    "names": list[str] | None,
    "columns": str | list[str],
    "weights": list[float] | Literal["balanced"] | None,
    "devices": list[int] | str | int,
    "one": str,
}


@pytest.mark.parametrize(
    ("name", "text", "quoted"),
    [
        ("names", "[no,yes]", ["no", "yes"]),
        ("names", "[0, 1]", ["0", "1"]),
        ("names", "[on,off]", ["on", "off"]),
        ("names", "[1.0,'2',null,2024-01-01]", ["1.0", "2", "null", "2024-01-01"]),
        ("columns", "[1,n]", ["1", "n"]),
    ],
)
def test_items_of_string_lists_are_quoted(name, text, quoted):
    assert yaml.safe_load(quote_names(text, HINTS[name])) == quoted


@pytest.mark.parametrize(
    ("name", "text"),
    [("weights", "[0,1]"), ("devices", "[0]"), ("names", "[[a]]"), ("names", "[a"), ("names", "null"), ("one", "[1]")],
)
def test_other_values_are_unchanged(name, text):
    assert quote_names(text, HINTS[name]) == text


CONFIG_FILE = ConfigLayer("--config=run.yaml", {}, {"names": 3, "columns": 4, "one": 5})


@pytest.mark.parametrize("values", [{"names": [False, True]}, {"columns": 1}, {"columns": ["a", 2.5]}, {"one": True}])
def test_unquoted_scalar_in_a_config_file_is_reported(values):
    pattern = r"--config=run.yaml, line \d: \w+: .* is not a string in YAML \(quote it"
    with pytest.raises(UserError, match=pattern):
        refuse_other_scalars(CONFIG_FILE, values, HINTS)


def test_valid_values_in_config_files_pass():
    values = {"names": None, "columns": ["a", "1"], "weights": [1, 2], "devices": 1, "one": "no", "unknown": 3}
    refuse_other_scalars(CONFIG_FILE, values, HINTS)


def test_class_names_on_a_command_line(perceiver, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("text,no\n" + "".join(f"text {n},{n % 2}\n" for n in range(8)))
    argv = ("--task=text-classification", "--data=text-files", f"--data.train_files={file}", "--data.label_column=no")
    result = perceiver("fit", *argv, "--data.label_names=[no,yes]", "--print_config")
    assert result.code == 0, result.err
    data = yaml.safe_load(result.out)["data"]
    assert (data["label_names"], data["label_column"]) == (["no", "yes"], "no")
    config = tmp_path / "run.yaml"
    config.write_text("data: {label_names: [no, yes]}")
    result = perceiver("fit", *argv, f"--config={config}", "--print_config")
    assert result.error.endswith("data.label_names: false is not a string in YAML (quote it, as in '1' or 'no')")


def test_table_with_another_delimiter(perceiver, regressor, table, tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(table.read_text().replace(",", ";"))
    result = perceiver("predict", f"--ckpt_path={regressor.last}", str(file))
    assert "delimiter=';' reads the header as 4 columns" in result.err
    assert result.code != 0
    result = perceiver("predict", f"--ckpt_path={regressor.last}", "--delimiter=;", "--format=json", str(file))
    assert result.code == 0, result.err
    assert len(json.loads(result.out)) == 40
    result = perceiver("predict", f"--ckpt_path={regressor.last}", "--text_column=age", str(file))
    assert (result.code, result.error) == (2, "--text_column=age: the model does not read texts (leave it out)")


@pytest.mark.parametrize(
    ("option", "expected"),
    [("mask_prob", "a number"), ("max_seq_len", "a whole number"), ("static_masking", "true or false")],
)
def test_null_is_refused_where_the_type_excludes_it(perceiver, tmp_path, option, expected):
    (tmp_path / "run.yaml").write_text(f"task: mlm\ndata:\n  {option}: null\n")
    error = perceiver("fit", f"--config={tmp_path / 'run.yaml'}").error
    assert error.endswith(f"run.yaml, line 3: data.{option}: must be {expected}, got null")


def test_null_is_accepted_where_the_type_includes_it():
    assert all(map(accepts_null, [None, Any, str | None, Literal["a", None], Path]))
    assert not any(map(accepts_null, [str, int | float, list[str], Literal["a", "b"], tuple[int, int] | bool]))
