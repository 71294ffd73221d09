"""Report at the end of training, and trials that leave nothing behind."""

from __future__ import annotations

import re
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from perceiver_cli.report import reached_limits, report


def trainer_at(step: int, epoch: int, *, at_end: bool = True, max_steps: int = -1, max_epochs: int = -1) -> Any:
    """Stub of a trainer that has stopped after a step, in or at the end of an epoch."""
    epoch_loop = SimpleNamespace(batch_progress=SimpleNamespace(is_last_batch=at_end))
    return SimpleNamespace(
        global_step=step,
        max_steps=max_steps,
        max_epochs=max_epochs,
        current_epoch=epoch,
        fit_loop=SimpleNamespace(epoch_loop=epoch_loop),
    )


@pytest.fixture
def lines(tmp_path):
    """Compose the report of a trainer with checkpoints selected by a metric."""

    def lines(
        monitor: str = "val_loss", score: float = 0.5, exists: bool = True, loggers: tuple = (), steps: int = 3
    ) -> list[str]:
        best = ModelCheckpoint(dirpath=tmp_path, monitor=monitor)
        best.best_model_score, best.best_model_path = torch.tensor(score), str(tmp_path / "my best.ckpt")
        for name in ("my best.ckpt", "last.ckpt") if exists else ():
            (tmp_path / name).touch()
        trainer = trainer_at(steps, 1, max_steps=steps)
        trainer.callback_metrics = {"val_loss": torch.tensor(0.25), "train_loss": torch.tensor(9.0)}
        trainer.checkpoint_callbacks, trainer.loggers = [best], loggers
        return list(report(trainer, tmp_path / "last.ckpt", " --again", " --plugin=p.py"))

    return lines


def test_results_and_commands(lines, tmp_path):
    assert lines(loggers=(TensorBoardLogger(tmp_path / "logs"),)) == [
        "\nTrained for 3 steps.",
        "Last validation: val_loss 0.2500",
        f"Best validation loss 0.5000: {tmp_path}/my best.ckpt",
        f"Latest state: {tmp_path}/last.ckpt",
        f"\nPredict:    perceiver predict '--ckpt_path={tmp_path}/my best.ckpt' --plugin=p.py ...",
        f"Resume:     perceiver fit --ckpt_path={tmp_path}/last.ckpt --again --trainer.max_steps=N",
        f"Logs:       tensorboard --logdir={tmp_path}/logs",
    ]


def test_best_checkpoint_is_reported_with_its_metric(lines):
    assert any(line.startswith("Best val_mae 0.5000: ") for line in lines("val_mae"))
    assert any(line.startswith("Best val_mae 1.25e-05: ") for line in lines("val_mae", 1.25e-5))


def test_one_step_is_singular(lines):
    assert lines(steps=1)[0] == "\nTrained for 1 step."


@pytest.mark.parametrize(
    ("state", "reached"),
    [
        ({"max_steps": 6}, {"max_steps": 6}),
        ({"max_steps": 7}, {}),
        ({"max_epochs": 2}, {"max_epochs": 2}),
        ({"max_epochs": 3}, {}),
        ({"max_steps": 7, "max_epochs": 2}, {"max_epochs": 2}),
        ({"max_steps": 6, "max_epochs": 2}, {"max_steps": 6, "max_epochs": 2}),
        ({"max_steps": 6, "max_epochs": 2, "at_end": False}, {"max_steps": 6}),
    ],
)
def test_limits_that_ended_training(state, reached):
    assert reached_limits(trainer_at(6, 2, **state)) == reached


def test_resume_command_names_the_limit_that_ended_training(perceiver, regressor, trained):
    assert "last.ckpt --trainer.max_epochs=N\n" in regressor.result.out
    assert "last.ckpt --trainer.max_steps=N\n" in trained.result.out


@pytest.mark.slow
def test_resumed_run_without_a_step_names_the_limit(perceiver, regressor, tmp_path):
    shutil.copytree(regressor.folder.parents[1], tmp_path / "logs")
    result = perceiver("fit", "--ckpt_path=last")
    assert result.code == 0, result.err
    first, *others = result.out.strip().splitlines()
    assert first == "--trainer.max_epochs=3: reached by the checkpoint; no step was trained (raise it)"
    assert not any(line.startswith("No validation was run") for line in others)
    assert "last.ckpt --trainer.max_epochs=N\n" in result.out
    result = perceiver("fit", "--ckpt_path=last", "--trainer.max_epochs=4")
    assert "Trained for 12 steps." in result.out


def test_only_existing_checkpoints_are_reported(lines):
    assert lines(exists=False)[-1] == "No checkpoint was saved."
    assert not any(".ckpt" in line for line in lines(exists=False))


def test_file_of_a_csv_logger_is_reported(lines, tmp_path):
    logger = CSVLogger(tmp_path, name="runs", version=0)
    assert lines(loggers=(logger,))[-1] == f"Logs:       {tmp_path}/runs/version_0/metrics.csv"


def test_run_without_steps_reports_no_checkpoint(perceiver, small):
    result = perceiver("fit", *small, "--trainer.max_steps=0")
    assert result.code == 0, result.err
    assert "No checkpoint was saved." in result.out
    assert ".ckpt" not in result.out.replace("best.ckpt was not saved", "")


def test_fast_dev_run_writes_nothing(perceiver, small, tmp_path):
    before = set(tmp_path.rglob("*"))
    result = perceiver("fit", *small, "--trainer.fast_dev_run=true")
    assert result.code == 0, result.err
    assert result.out.endswith("Trial run: nothing was saved.\n")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_model_summary_shows_parameters_without_operations(perceiver, small):
    summary = ["--trainer.enable_model_summary=true", "--trainer.fast_dev_run=true", "--model.encoder.freeze=true"]
    shown = perceiver("fit", *small, *summary)
    assert shown.code == 0, shown.err
    header, row, _, total = shown.out.splitlines()[:4]
    assert header.split() == ["Name", "Type", "Params", "Mode"]
    assert row.split()[:2] == ["model", "LanguageModel"]
    assert re.fullmatch(r"Parameters: [\d.]+ K? ?trainable, [\d.]+ K frozen \([\d.]+ MB\)", total), total
    assert "FLOPs" not in shown.out
    assert "summary" not in shown.err
    lightnings = perceiver("fit", *small, *summary, "--trainer.callbacks=ModelSummary")
    assert "Parameters:" not in lightnings.out


@pytest.mark.slow
def test_tuned_values_are_recorded_and_kept(perceiver, fit, small, load, monkeypatch):
    # Each of its garbage collections takes seconds after many tests.
    monkeypatch.setattr("pytorch_lightning.tuner.batch_size_scaling.garbage_collection_cuda", lambda: None)
    finders = ["--trainer.callbacks=LearningRateFinder", "--trainer.callbacks.num_training_steps=20"]
    finders += ["--trainer.callbacks+=BatchSizeFinder", "--trainer.callbacks.max_trials=2"]
    folder = fit(*small, *finders, "--trainer.max_steps=2", "--optimizer.lr=0.5", "--lr_scheduler=none")
    first = load(folder / "checkpoints" / "last.ckpt")
    rate = first["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate != 0.5
    run = first["perceiver"]["run"]
    assert (run["optimizer"]["lr"], run["data"]["batch_size"]) == (rate, 4)
    assert f"lr: {rate}" in (folder / "config.yaml").read_text()
    resumed = perceiver("fit", f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--trainer.max_steps=3")
    assert resumed.code == 0, resumed.err
    assert "LearningRateFinder and BatchSizeFinder: left out" in resumed.err
    second = load(folder / "checkpoints" / "last.ckpt")
    assert second["optimizer_states"][0]["param_groups"][0]["lr"] == rate
