"""Two processes train as one does with batches of twice the size."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def curve(folder, name: str) -> dict[int, float]:
    return {event.step: event.value for event in EventAccumulator(str(folder)).Reload().Scalars(name)}


def test_two_processes_train_as_one_process(start, finish, small, fit, texts, tmp_path):
    odd = tmp_path / "odd.txt"  # five examples: two processes cannot share them evenly
    odd.write_bytes((texts / "train.txt").read_bytes()[3:163])
    small = [*small, f"--data.val_files={odd}"]
    flags = [
        *small,
        "--trainer.max_steps=4",
        "--optimizer.lr=0.01",
        "--lr_scheduler=none",
        "--seed_everything=3",
    ]
    two = ["--data.batch_size=1", "--trainer.devices=2", "--trainer.strategy=ddp"]
    (tmp_path / "two").mkdir()
    processes = start("fit", *flags, "--trainer.val_check_interval=2", *two, cwd=tmp_path / "two")
    single = fit(*flags, "--trainer.val_check_interval=2", "--data.batch_size=2")  # while they import torch
    result = finish(processes)
    assert result.code == 0, result.err
    together = tmp_path / "two" / "logs" / "mlm" / "version_0"
    for name, steps in (("train_loss", [0, 1, 2, 3]), ("val_loss", [1, 3])):
        expected = curve(single, name)
        assert list(expected) == steps
        assert curve(together, name) == pytest.approx(expected, abs=1e-5)
    assert result.out.count("Trained for 4 steps.") == 1
