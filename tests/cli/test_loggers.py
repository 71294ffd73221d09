"""Logs of runs that are resumed, and of short ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_cli.loggers import _drop_rows
from perceiver_registry import UserError

METRICS = Path("lightning_logs", "version_0", "metrics.csv")


def steps(name: str) -> list[int]:
    with METRICS.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.slow
def test_resumed_run_continues_its_metrics_file(small, fit):
    flags = [*small, "--trainer.logger=CSVLogger", "--trainer.logger.save_dir=."]
    fit(*flags, "--trainer.max_steps=7", "--checkpoint.every_n_steps=4")
    with METRICS.open("a") as file:
        file.write("7,0.5")  # a row that was cut short when its run was killed
    fit("--ckpt_path=lightning_logs/version_0/checkpoints/last.ckpt", "--trainer.max_steps=12")
    assert steps("train_loss") == list(range(12))
    assert steps("val_loss") == [4, 9]


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,loss,step\n0,0.5,0\n0,0.25,1\n0,0.125,2\n0,0.0")
    assert _drop_rows(file, 2) == ["epoch", "loss", "step"]
    assert file.read_text().split() == ["epoch,loss,step", "0,0.5,0", "0,0.25,1"]


def test_file_without_metrics_is_refused(tmp_path):
    file = tmp_path / "metrics.csv"
    file.write_text("name,age\nAnna,3\n")
    with pytest.raises(UserError, match="no column 'step'"):
        _drop_rows(file, 2)
    assert file.read_text() == "name,age\nAnna,3\n"


@pytest.mark.slow
def test_steps_after_the_checkpoint_are_logged_once(small, fit):
    folder = fit(*small, "--trainer.max_steps=5")
    last = folder / "checkpoints" / "last.ckpt"
    kept = last.with_name("kept.ckpt")
    kept.write_bytes(last.read_bytes())
    fit(f"--ckpt_path={kept}", "--trainer.max_steps=8")
    fit(f"--ckpt_path={kept}", "--trainer.max_steps=8")
    events = EventAccumulator(str(folder)).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == list(range(8))


@pytest.mark.parametrize(("flags", "logged"), [([], [0, 1, 2]), (["--trainer.log_every_n_steps=2"], [1])])
def test_short_run_logs(small, fit, flags, logged):
    without = [flag for flag in small if not flag.startswith("--trainer.log_every_n_steps")]
    folder = fit(*without, "--trainer.max_steps=3", *flags)
    events = EventAccumulator(str(folder)).Reload()
    for name in ("train_loss", "learning_rate"):
        assert [event.step for event in events.Scalars(name)] == logged
