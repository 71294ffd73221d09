"""Training on labelled files of all formats, and flags that change the loss."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sample_data import sample_data

from perceiver_cli.data_modules import data_class

TINY = (
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--model.encoder.num_input_channels=16",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--model.encoder.dropout=0",
    "--model.encoder.init_scale=0.2",
    "--model.decoder.num_output_query_channels=16",
    "--model.decoder.init_scale=0.2",
    "--lr_scheduler=none",
)


@pytest.fixture
def classify(trainer) -> list[str]:
    """Flags of a classifier of texts without its files."""
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs"]
    return ["--task=text-classification", "--data=TextFilesDataModule", *trainer, *logger, *TINY]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def last(folder: Path) -> Path:
    return folder / "checkpoints" / "last.ckpt"


def metric(result, name: str) -> float:
    """Parse a metric that ``validate`` or ``test`` printed."""
    assert result.code == 0, result.err
    return float(re.search(rf"\b{name}\W+([-\d.]+)", result.out).group(1))


# Formats


def separated(rows: list[dict], delimiter: str) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


FORMATS = {
    "a.json": lambda rows: json.dumps(rows).encode(),
    "a.csv": lambda rows: separated(rows, ","),
    "a.tsv": lambda rows: separated(rows, "\t"),
    "a.parquet": parquet,
    "a.jsonl.gz": lambda rows: gzip.compress("\n".join(map(json.dumps, rows)).encode()),
    "a.csv.xz": lambda rows: lzma.compress(separated(rows, ",")),
}


@pytest.mark.slow
def test_format_of_files_does_not_change_training(fit, load, classify, reviews, tmp_path):
    files = [f"--data.val_files={reviews / 'val.jsonl'}", "--data.max_seq_len=32"]
    flags = [*classify, *files, "--data.batch_size=8", "--trainer.max_steps=2"]
    expected = load(last(fit(*flags, f"--data.train_files={reviews / 'train.jsonl'}")))
    assert expected["perceiver"]["model"]["decoder"]["label_names"] == ["gut", "schlecht"]
    (tmp_path / "a.csv.xz").write_bytes(FORMATS["a.csv.xz"](rows_of(reviews / "train.jsonl")))
    checkpoint = load(last(fit(*flags, "--data.train_files=a.csv.xz")))
    torch.testing.assert_close(checkpoint["state_dict"], expected["state_dict"], rtol=0, atol=0)


def batches(file: Path) -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    data = data_class("text-files", "text-classification")(train_files=str(file), max_seq_len=32, batch_size=8)
    data.prepare_data()
    data.setup("fit")
    return [*data.train_dataloader()]


@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_yield_the_same_batches(reviews, tmp_path, name):
    (tmp_path / name).write_bytes(FORMATS[name](rows_of(reviews / "train.jsonl")))
    torch.testing.assert_close(batches(tmp_path / name), batches(reviews / "train.jsonl"), rtol=0, atol=0)


@pytest.mark.slow
def test_texts_with_any_number_of_classes(fit, load, perceiver, classify, tmp_path):
    rows = [{"text": f"text {number}", "tags": list("abc"[number % 4 :])} for number in range(16)]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Path("val.csv").write_text("text,tags\none,a;c\ntwo,\n")
    Path("other.csv").write_text("text,tags\none,a;c\ntwo,b;d\n")
    flags = ("--data.train_files=train.jsonl", "--data.label_column=tags", "--data.val_fraction=0.3")
    run = fit(*classify, *flags, "--trainer.max_steps=2", "--model.decoder.threshold=0.01")
    decoder = load(last(run))["perceiver"]["model"]["decoder"]
    assert (decoder["label_names"], decoder["multi_label"], decoder["threshold"]) == (["a", "b", "c"], True, 0.01)
    model = f"--ckpt_path={last(run)}"
    without_training = (model, "--data.train_files=null", "--data.label_separator=;")
    result = perceiver("validate", *without_training, "--data.val_files=val.csv")
    assert metric(result, "val_map") > 0
    result = perceiver("validate", *without_training, "--data.val_files=other.csv")
    assert re.search(r"other.csv, line 3: the label 'd' .* does not occur in the training data", result.error)
    for argv, numbers in (((), {3}), (("--threshold=0.99",), {0})):
        result = perceiver("predict", model, *argv, "--format=json", "a text", "train.jsonl")
        assert {len(each["labels"]) for each in json.loads(result.out)} == numbers
    result = perceiver("fit", *classify, *flags, f"--model.params={last(run)}", "--model.decoder.multi_label=false")
    assert "multi_label=False: does not fit the data, which has multi_label=True" in result.error


@pytest.mark.slow
def test_columns_and_labels_of_other_names_and_types(fit, load, classify, tmp_path):
    for number, (values, names) in enumerate({
        (3, 20, 100): ["3", "20", "100"],
        (True, False): ["false", "true"],
        ("nein", "ja", "ärger"): ["ja", "nein", "ärger"],
    }.items()):  # fmt: skip
        rows = [{"body": f"Nr. {i}", "kind": values[i % len(values)]} for i in range(24)]
        (tmp_path / f"{number}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        columns = ["--data.text_column=body", "--data.label_column=kind"]
        folder = fit(*classify, f"--data.train_files={number}.jsonl", *columns, "--trainer.max_steps=1")
        assert load(last(folder))["perceiver"]["model"]["decoder"]["label_names"] == names


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--data.label_column=stars"],
            "line 1: no column 'stars'; --data.label_column must be one of: text",
        ),
        (["--data.text_column=body"], "no column 'body'; --data.text_column must be one of: text, label"),
        (["--data.label_column=text"], "label_column=text: is the column of the text"),
        (['--data.label_names=["gut", "mittel"]'], "the label 'schlecht' is not in --data.label_names"),
        (["--data.val_files=other.jsonl"], "other.jsonl, line 2: the label 'mittel' in the column 'label'"),
        (["--data.val_files=texts.txt"], "texts.txt: not a table (columns are read from .jsonl, .json, .csv"),
        (["--data.test_files=train.jsonl"], "test_files: train.jsonl is in --data.train_files as well"),
        (
            ["--model.decoder.num_classes=3"],
            "--model.decoder.num_classes=3: does not fit the data, which has num_classes=2 (leave it out",
        ),
        (["--task.class_weights=[1, 2, 3]"], "class_weights: must be 2 numbers of at least 0"),
        (
            ["--task.class_weights=balance"],
            "--task.class_weights: must be a list of numbers, 'balanced' or null, got 'balance' (did",
        ),
        (["--task.label_smoothing=1"], "label_smoothing=1.0 must be at least 0 and less than 1"),
        (["--task.patience=0"], "patience=0 must be at least 1"),
        (["--task.ema_decay=1"], "ema_decay=1.0 must be more than 0 and less than 1"),
    ],
)
def test_wrong_labels_and_flags_are_reported(perceiver, classify, reviews, tmp_path, flags, message):
    (tmp_path / "train.jsonl").write_bytes((reviews / "train.jsonl").read_bytes())
    other = [{"text": "x", "label": "gut"}, {"text": "y", "label": "mittel"}]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, other)))
    (tmp_path / "texts.txt").write_text("gut")
    assert message in perceiver("fit", *classify, "--data.train_files=train.jsonl", *flags).error


# Data sets


@pytest.mark.slow
@pytest.mark.parametrize(
    ("files", "num_classes"),
    [
        ({"train": "sst2/train.jsonl.xz", "val": "sst2/dev.jsonl.xz"}, 2),
        ({"train": "ag-news-test/first-5600.jsonl.xz"}, 4),
        ({"train": "banking77/train.jsonl.xz"}, 77),
        ({"train": "clinc150/train.jsonl.xz", "val": "clinc150/val.jsonl.xz"}, 150),
        ({"train": "sms-spam/train.jsonl.xz"}, 2),
    ],
    ids=lambda value: value["train"].split("/")[0] if isinstance(value, dict) else str(value),
)
def test_known_data_sets(fit, load, classify, files, num_classes):
    paths = {split: sample_data(name) for split, name in files.items()}
    data = [f"--data.{split}_files={path}" for split, path in paths.items()]
    small = ["--data.max_seq_len=32", "--data.batch_size=4", "--data.valid_batch_size=8"]
    short = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.limit_val_batches=1"]
    folder = fit(*classify, *data, *small, *short)
    checkpoint = load(last(folder))
    assert checkpoint["global_step"] == 2
    decoder = checkpoint["perceiver"]["model"]["decoder"]
    assert decoder["num_classes"] == len(decoder["label_names"]) == num_classes
    assert checkpoint["state_dict"]["model.output_adapter.linear.weight"].shape == (num_classes, 16)
    with (folder / "metrics.csv").open() as file:
        losses = [float(row["val_loss"]) for row in csv.DictReader(file) if row["val_loss"]]
    # Hardly trained, it is about as good as chance.
    assert losses[-1] == pytest.approx(math.log(num_classes), rel=0.5)


# Evaluation


@pytest.mark.slow
@pytest.mark.parametrize(("command", "split"), [("validate", "val"), ("test", "test")])
def test_accuracy_equals_that_of_the_predictions(text_classifier, perceiver, reviews, tmp_path, command, split):
    # Some labels are swapped, so that some predictions are wrong.
    swap = {"gut": "schlecht", "schlecht": "gut"}
    rows = rows_of(reviews / f"{split}.jsonl")
    rows = [row | {"label": swap[row["label"]] if n % 3 == 0 else row["label"]} for n, row in enumerate(rows)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    checkpoint = f"--ckpt_path={text_classifier.last}"
    result = perceiver(command, checkpoint, f"--data.{split}_files=rows.jsonl")
    predicted = json.loads(perceiver("predict", checkpoint, *(row["text"] for row in rows), "--format=json").out)
    right = [prediction["label"] == row["label"] for prediction, row in zip(predicted, rows, strict=True)]
    assert 0 < sum(right) < len(right)
    assert metric(result, f"{split}_accuracy") == pytest.approx(sum(right) / len(right))
    probabilities = [
        {guess["label"]: guess["probability"] for guess in prediction["top"]}[row["label"]]
        for prediction, row in zip(predicted, rows, strict=True)
    ]
    loss = sum(-math.log(probability) for probability in probabilities) / len(rows)
    assert metric(result, f"{split}_loss") == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
def test_test_needs_test_files(fit, perceiver, classify, reviews):
    folder = fit(*classify, f"--data.train_files={reviews / 'train.jsonl'}", "--trainer.max_steps=1")
    line = perceiver("test", f"--ckpt_path={last(folder)}").error
    assert line == "no test data (name files with --data.test_files)"
    tested = perceiver("test", f"--ckpt_path={last(folder)}", f"--data.test_files={reviews / 'test.jsonl'}")
    assert 0 <= metric(tested, "test_accuracy") <= 1


# Flags of the task


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.25])
@pytest.mark.parametrize("weights", [None, "balanced", "[1, 3]"])
def test_class_weights_and_label_smoothing_change_the_loss(fit, perceiver, classify, reviews, weights, smoothing):
    files = [f"--data.{split}_files={reviews / split}.jsonl" for split in ("train", "val")]
    # One step, with all examples in a batch, that changes nothing.
    still = ["--optimizer.lr=0", "--data.batch_size=40", "--trainer.max_steps=1", "--model.encoder.token_dropout=0"]
    flags = [f"--task.label_smoothing={smoothing}", *([f"--task.class_weights={weights}"] if weights else [])]
    folder = fit(*classify, *files, *still, *flags)
    with (folder / "metrics.csv").open() as file:
        (logged,) = [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]

    rows = rows_of(reviews / "train.jsonl")
    predicted = perceiver("predict", f"--ckpt_path={last(folder)}", *(row["text"] for row in rows), "--format=json")
    counts = {"gut": 10, "schlecht": 30}
    by_class = {
        None: {"gut": 1, "schlecht": 1},
        "balanced": {name: 40 / (2 * count) for name, count in counts.items()},
        "[1, 3]": {"gut": 1, "schlecht": 3},
    }[weights]
    total = weight_sum = 0.0
    for prediction, row in zip(json.loads(predicted.out), rows, strict=True):
        losses = {guess["label"]: -math.log(guess["probability"]) for guess in prediction["top"]}
        smoothed = (1 - smoothing) * losses[row["label"]] + smoothing * sum(losses.values()) / 2
        total += by_class[row["label"]] * smoothed
        weight_sum += by_class[row["label"]]
    assert logged == pytest.approx(total / weight_sum, rel=1e-5)


@pytest.mark.slow
def test_patience_stops_training(fit, load, classify, reviews):
    files = [f"--data.{split}_files={reviews / split}.jsonl" for split in ("train", "val")]
    flags = ["--data.batch_size=20", "--optimizer.lr=0", "--task.patience=2", "--trainer.max_epochs=9"]
    assert load(last(fit(*classify, *files, *flags)))["global_step"] == 3 * 2  # the first is the best, then two more


@pytest.mark.slow
def test_moving_average_is_evaluated_and_saved(fit, load, perceiver, classify, reviews):
    files = [f"--data.{split}_files={reviews / split}.jsonl" for split in ("train", "val")]
    flags = ["--data.batch_size=20", "--optimizer.lr=0.1", "--trainer.max_steps=2"]
    plain, averaged = (load(last(fit(*classify, *files, *flags, *more))) for more in ([], ["--task.ema_decay=0.5"]))
    first = load(last(fit(*classify, *files, *flags, "--trainer.max_steps=1")))["state_dict"]
    for key, weight in averaged["current_model_state"].items():
        torch.testing.assert_close(weight, plain["state_dict"][key], rtol=0, atol=0)
        # It starts as the weights after the first step.
        torch.testing.assert_close(averaged["state_dict"][key], (first[key] + weight) / 2)


@pytest.mark.slow
def test_throughput_is_logged_with_short_epochs(fit, classify, reviews):
    files = [f"--data.{split}_files={reviews / split}.jsonl" for split in ("train", "val")]
    flags = ["--data.batch_size=20", "--trainer.log_every_n_steps=3", "--trainer.max_epochs=6"]
    folder = fit(*classify, *files, *flags)
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("train_loss", "examples_per_second"):
        assert [int(row["step"]) for row in rows if row[name]] == [2, 5, 8, 11]
    assert all(float(row["examples_per_second"]) > 0 for row in rows if row["examples_per_second"])
