"""Files of results (``--result``)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from perceiver_cli.results import RunResult, write_result


@pytest.fixture
def result_of(perceiver):
    """Return a function that runs a command with ``--result`` and returns the file's content."""

    def result_of(*argv: str) -> dict:
        Path("result.json").unlink(missing_ok=True)
        result = perceiver(*argv, "--result=result.json")
        assert result.code == 0, result.err
        return json.loads(Path("result.json").read_text())

    return result_of


def test_training_has_its_metrics_and_checkpoints(result_of, small, load):
    fit = result_of("fit", *small, "--trainer.max_steps=12", "--optimizer.lr=0.01")
    assert (fit["command"], fit["task"]) == ("fit", "mlm")
    assert (fit["steps"], fit["epochs"], fit["model"]) == (12, 3, None)
    assert fit["folder"] == "logs/mlm/version_0"
    assert fit["last_checkpoint"] == f"{fit['folder']}/checkpoints/last.ckpt"
    assert load(Path(fit["last_checkpoint"]))["global_step"] == 12
    assert {"train_loss", "val_loss", "learning_rate"} <= fit["metrics"].keys()
    assert fit["seconds"] > 0
    best = result_of("validate", f"--ckpt_path={fit['best_checkpoint']}")
    assert fit["best_metric"] == "val_loss"
    assert best["metrics"]["val_loss"] == pytest.approx(fit["best_value"], rel=1e-5)
    assert best["model"] == fit["best_checkpoint"]
    # A resumed run counts the steps of both, and its configuration has no file of results.
    resumed = result_of("fit", "--ckpt_path=last", "--trainer.max_steps=13")
    assert (resumed["steps"], resumed["model"]) == (13, fit["last_checkpoint"])
    assert "result" not in load(Path(resumed["last_checkpoint"]))["perceiver"]["run"]
    assert "result" not in Path(resumed["folder"], "config.yaml").read_text()


def test_evaluation_has_the_metrics_that_are_printed(result_of, perceiver, trained):
    evaluated = result_of("test", f"--ckpt_path={trained.last}")
    assert list(evaluated["metrics"]) == ["test_loss"]
    assert f"{evaluated['metrics']['test_loss']:.6f}" in perceiver("test", f"--ckpt_path={trained.last}").out
    assert (evaluated["model"], evaluated["steps"], evaluated["folder"]) == (str(trained.last), 0, None)


def test_trial_run_names_no_files(result_of, small):
    trial = result_of("fit", *small, "--trainer.fast_dev_run=true")
    assert [trial[name] for name in ("best_checkpoint", "last_checkpoint", "folder")] == [None, None, None]


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("there.json", "already exists (--overwrite replaces it)"),
        ("folder", "is a folder (give a file name)"),
        ("missing/r.json", "its folder does not exist (create it first)"),
        ("pipe", "is a device or a pipe (give the name of a file)"),
    ],
)
def test_unusable_file_is_refused_before_training(perceiver, small, file, error):
    Path("there.json").write_text("mine")
    Path("folder").mkdir()
    os.mkfifo("pipe")
    assert perceiver("fit", *small, f"--result={file}").error == f"--result={file}: {error}"
    assert Path("there.json").read_text() == "mine"
    assert not Path("logs").exists()


def test_file_is_replaced_on_demand(perceiver, trained):
    Path("there.json").write_text("mine")
    result = perceiver("validate", f"--ckpt_path={trained.last}", "--result=there.json", "--overwrite")
    assert result.code == 0, result.err
    assert json.loads(Path("there.json").read_text())["command"] == "validate"


def test_numbers_that_are_not_finite_are_null(tmp_path):
    result = RunResult("test", "regression", {"test_r2": float("nan"), "test_loss": 1.5}, best_value=float("inf"))
    write_result(result, str(tmp_path / "r.json"))
    written = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert written["metrics"] == {"test_r2": None, "test_loss": 1.5}
    assert written["best_value"] is None
