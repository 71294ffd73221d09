"""Python API ``perceiver_zoo``, compared with the command."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import yaml

import perceiver_zoo
from perceiver_registry import UserError, load_model
from perceiver_zoo.commands import as_flags

TRAINER = {
    "accelerator": "cpu",
    "log_every_n_steps": 1,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
MODEL = {
    "num_latents": 4,
    "num_latent_channels": 16,
    "encoder": {"num_input_channels": 16, "num_self_attention_layers_per_block": 1},
}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    rows = [f"a good day number {number},pos\na bad night number {number},neg\n" for number in range(20)]
    file.write_text("text,label\n" + "".join(rows))
    return file


@pytest.fixture(scope="module")
def result(reviews, tmp_path_factory, environment):
    """Classifier of reviews. Read-only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        patch.setenv("PERCEIVER_CACHE", environment["PERCEIVER_CACHE"])
        trained = perceiver_zoo.train(
            task="text-classification", data=reviews, trainer={**TRAINER, "max_epochs": 3}, model=MODEL
        )
        trained.source = str(Path(trained.source).absolute())
        trained.predict(["loads the model"])
    return trained


def test_import_is_light():
    heavy = "{'torch', 'sklearn'} & {*sys.modules}"
    code = f"import sys, perceiver_zoo; perceiver_zoo.list_models(); print({heavy}, dir(perceiver_zoo))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    names = [
        "LoadedModel",
        "PerceiverClassifier",
        "PerceiverRegressor",
        "TrainedModel",
        "create_model",
        "embed",
        "list_models",
        "load",
        "train",
    ]
    assert printed.strip() == f"set() {names}"


def test_training_equals_that_of_the_command(fit, small, load, texts):
    expected = load(fit(*small, "--trainer.max_steps=3", "--optimizer=Lamb") / "checkpoints" / "last.ckpt")
    data = {f"{split}_files": texts / f"{split}.txt" for split in ("train", "val", "test")}
    trained = perceiver_zoo.train(
        "mlm",
        {"name": "text-files", **data, "max_seq_len": 32, "batch_size": 2},
        model=MODEL,
        trainer={**TRAINER, "max_steps": 3},
        optimizer={"name": "Lamb"},
    )
    actual = load(Path(trained.result.last_checkpoint))
    torch.testing.assert_close(actual["state_dict"], expected["state_dict"], rtol=0, atol=0)
    assert actual["perceiver"]["run"] == expected["perceiver"]["run"]
    assert trained.result.steps == 3


def test_metrics_are_those_of_the_run(result):
    assert {"train_loss", "val_loss", "val_accuracy"} <= result.metrics.keys()
    assert result.validate()["val_loss"] == pytest.approx(result.result.best_value, rel=1e-5)


def test_predictions_equal_those_of_the_command(result, perceiver):
    texts = ["a good day", "number 3", "-1 bad night"]
    printed = perceiver("predict", f"--ckpt_path={result.source}", "--format=jsonl", "--top_k=1", "--", *texts)
    assert result.predict(texts, top_k=1) == [json.loads(line) for line in printed.out.splitlines()]
    assert result.predict("a good day", top_k=1) == result.predict(["a good day"], top_k=1)
    loaded = perceiver_zoo.load(result.source, device="cpu")
    assert loaded.predict(iter(texts)) == result.predict(texts)
    assert loaded.predict([]) == []
    assert loaded.task == "text-classification"
    assert not loaded.model.training


def test_inputs_are_files_as_well(result, tmp_path):
    (tmp_path / "a.txt").write_text("a good day")
    (from_file,), (from_text,) = result.predict(tmp_path / "a.txt"), result.predict("a good day")
    assert from_file == from_text | {"input": str(tmp_path / "a.txt")}


def test_rows_in_memory_are_read_like_a_file(result, tmp_path):
    rows = [{"text": "a good day", "stars": 3}, {"text": "number 3", "stars": None}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    expected = [{**each, "input": f"inputs[{i}]"} for i, each in enumerate(result.predict(tmp_path / "rows.jsonl"))]
    assert result.predict(rows) == result.predict(pd.DataFrame(rows, index=["x", "y"])) == expected
    assert result.predict(rows[1])[0]["probability"] == pytest.approx(expected[1]["probability"], rel=1e-5)
    np.testing.assert_array_equal(result.embed(rows), result.embed(tmp_path / "rows.jsonl"))
    mixed = result.predict([tmp_path / "rows.jsonl", rows[1], "number 3"])
    assert [each["input"] for each in mixed[1:]] == [str(tmp_path / "rows.jsonl:2"), "inputs[1]", "number 3"]
    for other in mixed[2:]:  # rows of a batch may differ in the last bit
        assert other["label"] == mixed[1]["label"]
        assert other["probability"] == pytest.approx(mixed[1]["probability"], rel=1e-5)
    assert {type(each["input"]) for each in mixed} == {str}
    (best,) = result.similar(rows, to={"text": "number 3"}, top_k=1)
    assert best == {"input": "inputs[1]", "similarity": pytest.approx(1.0)}


def test_embeddings_equal_those_of_the_model(result):
    texts = ["a good day", "number"]
    reader = next(iter(result._predictors.values())).reader
    batch = reader.collate([reader.read(text) for text in texts])
    with torch.no_grad():
        latents = load_model(result.source).encode(batch).numpy()
    np.testing.assert_allclose(result.embed(texts), latents.mean(axis=1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.stack(result.embed(texts, pool="none")), latents, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(perceiver_zoo.embed(result.source, texts), result.embed(texts))
    (similar,) = result.similar(texts, to="number", top_k=1)
    assert similar == {"input": "number", "similarity": pytest.approx(1.0)}


def test_text_column_of_a_table(result, tmp_path):
    texts = ["a good day", "a bad night"]
    file = tmp_path / "days.csv"
    file.write_text("id,review\n7,a good day\n8,a bad night\n")
    found = result.predict(file, text_column="review")
    inputs = [f"{file}:1", f"{file}:2"]
    assert found == [each | {"input": name} for each, name in zip(result.predict(texts), inputs, strict=True)]
    np.testing.assert_array_equal(result.embed(file, text_column="review"), result.embed(texts))
    (similar,) = result.similar(file, to="a bad night", top_k=1, text_column="review")
    assert similar["input"] == inputs[1]
    with pytest.raises(UserError, match=r"no column 'text'; text_column must be one of: id, review"):
        result.predict(file)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: model.predict(["x"], top_kk=1), "top_kk: not an option of predict (known: top_k, batch_size, "),
        (lambda model: model.predict(["x"], output="a.csv"), "output: not an option of predict (known: "),
        (lambda model: model.predict(["x"], top_k=0), "--top_k=0 must be at least 1"),
        (
            lambda model: model.predict(["x", 3]),
            "inputs[1]: must be a text or path or a row of a table (a dict), got int",
        ),
        (lambda model: model.predict({"txt": "x"}), "inputs[0]: no column 'text'; text_column must be one"),
        (lambda model: model.predict([{"text": 3}]), "inputs[0]: 'text' must be text, got a whole number"),
        (lambda model: model.embed(b"x"), "inputs[0]: must be a text or path or a row of a table (a dict), got bytes"),
        (lambda model: model.predict(None), "inputs[0]: must be a text or path or a row of a table (a dict), got None"),
        (
            lambda model: model.similar(["x"], to=["y"]),
            "to: must be a text or path or a row of a table (a dict), got l",
        ),
        (lambda model: model.similar(["x"], to={"text": "y"}, top_k=0), "top_k=0 must be at least 1"),
        (
            lambda model: model.predict(np.array(3)),
            "inputs[0]: must be a text or path or a row of a table (a dict), got",
        ),
        (lambda model: model.predict(np.zeros((9, 8, 3))), "inputs: an array of shape (9, 8, 3) may be one image or"),
        (lambda model: model.predict(pd.DataFrame({"text": ["x", 3]})), "inputs: not a table that can be read (("),
        (
            lambda model: model.predict(pa.table({"text": pa.array([2**60], pa.timestamp("ms"))})),
            "inputs: not a table that can be read (",
        ),
        (lambda model: model.predict("x", keep_columns=["text"]), "keep_columns: not an option of predict (known: "),
        (lambda model: model.embed(["x"], top_k=2), "top_k: not an option of embed (use similar)"),
        (lambda model: model.validate(ckpt_path="last"), "ckpt_path: not an option of validate (load the other"),
        (lambda model: perceiver_zoo.load(None), "source: must be a path or hub id, got NoneType"),
        (lambda model: perceiver_zoo.load(model.source, "foo").predict("x"), "You selected an invalid accelerator"),
        (
            lambda model: perceiver_zoo.train("mlm", trainer={"callbacks": [object()]}),
            "trainer.callbacks: must be plain",
        ),
        (lambda model: model.embed(["x"], pool="max"), "--pool: must be 'mean' or 'none', got 'max'"),
        (lambda model: model.test(data={"test_file": "x"}), "--data.test_file: unknown flag (did you mean "),
        (lambda model: model.export("model.foo"), "--output=model.foo: unknown suffix (add --format=onnx"),
        (lambda model: perceiver_zoo.load("missing.ckpt"), "missing.ckpt: no such checkpoint"),
        (lambda model: perceiver_zoo.train("mlm", "missing.txt"), "--data=missing.txt: not found (relative to "),
        (
            lambda model: perceiver_zoo.train("mlm", seed_everything=object()),
            "seed_everything: must be plain data or a",
        ),
    ],
)
def test_wrong_use_raises_errors_of_the_command(result, call, message):
    with pytest.raises(UserError) as raised:
        call(result)
    assert str(raised.value).startswith(message)


def test_failed_inputs_are_named(result, tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.txt.*b\.txt.*c\.txt.*\(and 1 more\)$"):
        result.predict([tmp_path / f"{name}.txt" for name in "abcd"])


def test_run_without_checkpoints_has_metrics_and_no_model(texts, tmp_path):
    (tmp_path / "trainer.yaml").write_text(yaml.safe_dump({**TRAINER, "fast_dev_run": True}))
    trained = perceiver_zoo.train("mlm", texts / "train.txt", model=MODEL, trainer="trainer.yaml")
    assert trained.metrics["val_loss"] > 0
    for use in (lambda: trained.task, lambda: trained.predict("x"), trained.test, lambda: trained.export("m.onnx")):
        with pytest.raises(UserError, match="the run saved no checkpoint"):
            use()


def test_model_is_independent_of_the_working_directory(result, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(result.source).parent)
    model = perceiver_zoo.load("best.ckpt", "cpu")
    monkeypatch.chdir(tmp_path)
    assert model.predict("a good day") == result.predict("a good day")
    assert model.validate().keys() == result.validate().keys()


def test_search_does_not_reuse_its_reference(result, tmp_path):
    text = tmp_path / "x.txt"
    for content in ("a good day", "number"):
        text.write_text(content)
        (best, *_) = result.similar(["a good day", "number"], to=text)
        assert best["input"] == content
    assert result.embed([]).shape == (0, 0)


def test_warning_format_is_restored(result, perceiver):
    before = warnings.formatwarning
    result.validate()
    assert warnings.formatwarning is before


@pytest.mark.slow
def test_export_writes_a_file(result, tmp_path):
    file = result.export(tmp_path / "model.pt2")
    assert file == tmp_path / "model.pt2"
    assert torch.export.load(file) is not None
    with pytest.raises(UserError, match=r"already exists"):
        result.export(file)


def test_options_become_flags():
    options = {
        "data": {"name": "text-files", "train_files": [Path("a.txt"), "b.txt"]},
        "optimizer": "Lamb",
        "trainer": {"max_steps": np.int64(3), "logger": False, "devices": None},
        "model": {"encoder": {"name": "text", "dropout": 0.5}},
    }
    assert list(as_flags(options)) == [
        "--data=text-files",
        '--data.train_files=["a.txt", "b.txt"]',
        "--optimizer=Lamb",
        "--trainer.max_steps=3",
        "--trainer.logger=false",
        "--trainer.devices=null",
        "--model.encoder=text",
        "--model.encoder.dropout=0.5",
    ]
