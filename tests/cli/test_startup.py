"""Help, version and listings, which import nothing slow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

LIGHT = [
    "--help",
    "--version",
    "list-adapters",
    "list-architectures",
    "list-tasks",
    "list-data",
    "list-models",
    "list-formats",
    "plugins",
]

IMPORTS = """
import json, sys
from perceiver_cli.main import main
codes = [main([argument]) for argument in sys.argv[1:]]
slow = sorted({"torch", "pytorch_lightning", "transformers", "datasets", "jsonargparse"} & set(sys.modules))
print(json.dumps([codes, slow]))
"""


def test_listings_and_help_import_nothing_slow():
    finished = subprocess.run([sys.executable, "-c", IMPORTS, *LIGHT], capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout.splitlines()[-1]) == [[0] * len(LIGHT), []]


def test_command_is_installed(start, finish, tmp_path):
    assert finish(start("--version", cwd=tmp_path)).out == f"perceiver {version('perceiver-zoo')}\n"


def test_help_names_every_command(perceiver):
    shown = perceiver("--help")
    assert shown.code == 0
    for command in ("fit", "validate", "test", "predict", "embed", "describe", *LIGHT[2:]):
        assert f"\n  {command} " in shown.out
    assert perceiver("-h").out == shown.out


def test_missing_command_has_exit_code_2(perceiver):
    assert perceiver().code == 2


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("list-adapters", {("text", "input"), ("text", "output")}),
        ("list-tasks", {("mlm", "task")}),
        ("list-data", {("python-docs", "data"), ("text-files", "data"), ("wikipedia", "data")}),
        ("list-models", {("language-perceiver", "model")}),
        ("list-formats", {("checkpoint", "format"), ("huggingface", "format"), ("zoo", "format")}),
    ],
)
def test_listings_name_the_distribution(perceiver, command, expected):
    rows = json.loads(perceiver(command, "--format=json").out)
    ours = [row for row in rows if row["distribution"] == "perceiver-zoo"]
    assert {(row["name"], row["kind"]) for row in ours} >= expected
    assert {row["version"] for row in ours} == {version("perceiver-zoo")}
    assert all(row["summary"] for row in rows)
    table = perceiver(command)
    assert table.code == 0
    for name, _ in expected:
        (line, *_) = [line for line in table.out.splitlines() if line.startswith(name)]
        assert "perceiver-zoo" in line
        assert version("perceiver-zoo") in line


def test_model_is_listed_with_size_and_weights(perceiver):
    (row,) = json.loads(perceiver("list-models", "language-*", "--task=mlm", "--format=json").out)
    assert row["parameters"] == 201_108_230
    assert row["weights"] == "deepmind/language-perceiver"


def test_listings_are_filtered(perceiver):
    def names(*argv):
        return [row["name"] for row in json.loads(perceiver(*argv, "--format=json").out)]

    assert names("list-data", "wiki*") == ["wikipedia", "wikitext"]
    assert [
        row["kind"] for row in json.loads(perceiver("list-adapters", "text", "--kind=output", "--format=json").out)
    ] == ["output"]
    assert names("list-data", "no-such-*") == []
    assert "no-such-*" in perceiver("list-data", "no-such-*").out


@pytest.mark.parametrize(
    ("argv", "near"),
    [
        (["list-data", "--task=mml"], "did you mean 'mlm'?"),
        (["list-adapters", "--kind=inptu"], "invalid choice: 'inptu'"),
        (["list-adapters", "--formt=json"], "--formt: unknown flag (did you mean '--format'?)"),
        (["describe"], "the following arguments are required: name"),
        (["describe", "language-percever"], "did you mean 'language-perceiver'"),
        (["describe", "text", "--kind=model"], "describe: unknown name 'text' ("),
        (["describe", "qqqqqqqq"], "describe: unknown name 'qqqqqqqq' (perceiver list-adapters, list-arch"),
        (["list-format"], "did you mean 'list-formats'"),
        (["list-adapter"], "did you mean 'list-adapters'"),
        (["fti"], "did you mean 'fit'?"),
    ],
)
def test_wrong_use_is_one_line(perceiver, argv, near):
    assert near in perceiver(*argv).error


def test_describe_shows_the_fields_of_each_task(perceiver):
    shown = perceiver("describe", "text-files").out
    shared, masked, chunked, causal, labelled = shown.split("\nonly with --task=")
    assert "your own .txt, .jsonl, .csv, .tsv or .parquet files" in shared
    assert "\ntrain_files " in shared
    assert "\ntarget " not in shared
    assert masked.startswith("mlm:\n")
    assert "Literal['masked']" in masked
    assert chunked.startswith("mlm, text-classification, classification, regression, token-classification:\n")
    assert causal.startswith("clm:\n")
    assert labelled.startswith("text-classification, classification, regression, token-classification:\n")
    assert "Literal['class', 'number', 'token']" in labelled
    (described,) = json.loads(perceiver("describe", "text-files", "--format=json").out)
    tasks = {field["field"]: field.get("tasks") for field in described["fields"]}
    assert (tasks["train_files"], tasks["mask_prob"]) == (None, ["mlm"])
    assert described["details"]["modules"]["regression"].endswith("LabelledTextFilesDataModule")


@pytest.mark.parametrize(
    ("name", "kind", "field"),
    [
        ("text", "input", ("vocab_size", "int", "262", "size of the vocabulary")),
        ("text", "output", ("num_output_query_channels", "int | None", "None", "output query")),
        ("mlm", "task", ("num_samples", "int", "4", "validation examples")),
        ("TextFilesDataModule", "data", ("mask_prob", "float", "0.15", "to predict")),
        ("TextFilesDataModule", "data", ("train_files", "str | list[str] | None", "None", "Files to train on")),
    ],
)
def test_describe_shows_types_defaults_and_documentation(perceiver, name, kind, field):
    (described,) = json.loads(perceiver("describe", name, f"--kind={kind}", "--format=json").out)
    assert described["distribution"] == "perceiver-zoo"
    fields = {each["field"]: each for each in described["fields"]}
    expected_name, expected_type, default, meaning = field
    assert (
        fields[expected_name]["type"].replace("Union[str, list[str], None]", "str | list[str] | None") == expected_type
    )
    assert fields[expected_name]["default"] == default
    assert meaning in fields[expected_name]["meaning"]
    assert all(each["meaning"] for each in described["fields"]), "a field without documentation"


def test_describe_shows_all_kinds_of_a_name(perceiver):
    shown = perceiver("describe", "text").out
    assert "input adapter text: " in shown
    assert "output adapter text: " in shown
    assert "perceiver_plugins.text.adapters:TextInputAdapter" in shown


def test_describe_shows_details_of_a_model(perceiver):
    shown = perceiver("describe", "language-perceiver").out
    assert "201108230" in shown
    assert "deepmind/language-perceiver" in shown
    assert "optimizer: Lamb" in shown
    assert re.search(r"^encoder.num_self_attention_layers_per_block +int +26 ", shown, flags=re.MULTILINE)
    assert "inputs: text: tokens or UTF-8 bytes with learned positions (input_ids, attention_mask)" in shown
    assert "outputs: text: token logits at each position of a sequence" in shown
    assert "weights: not published" in perceiver("describe", "mnist-classifier").out


def test_formats_are_described(perceiver):
    shown = perceiver("describe", "safetensors").out
    assert shown.startswith("format safetensors: weights")
    (row,) = json.loads(perceiver("list-formats", "checkpoint", "--format=json").out)
    assert (row["form"], row["ways"]) == (".ckpt, .pt", "reads, writes")


def test_help_of_convert_imports_nothing_slow():
    convert = IMPORTS.replace("main([argument])", 'main(["convert", argument])')
    finished = subprocess.run([sys.executable, "-c", convert, "--help"], capture_output=True, text=True, check=True)
    assert json.loads(finished.stdout.splitlines()[-1]) == [[0], []]


def test_help_of_fit_shows_flags_of_chosen_classes(perceiver):
    def flags(*argv):
        return perceiver("fit", "--help", *argv).out

    assert "--trainer.max_steps" in flags()
    assert "--model.encoder.vocab_size" not in flags()
    chosen = flags("--task=mlm", "--data=text-files", "--optimizer=SGD", "--lr_scheduler=StepLR")
    for flag in ("model.encoder.vocab_size", "data.train_files", "optimizer.momentum", "lr_scheduler.step_size"):
        assert f"--{flag} " in chosen
    assert "--lr_scheduler.warmup_steps" not in chosen


def test_help_of_the_trainer_lists_no_own_classes(perceiver):
    shown = "".join(perceiver("fit", "--task=mlm", "--help").out.split())
    assert "pytorch_lightning.callbacks.EarlyStopping,pytorch_lightning" in shown
    assert "perceiver_" not in shown
