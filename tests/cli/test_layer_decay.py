"""Checkpoints of runs with layer-wise learning rate decay."""

from __future__ import annotations

import shutil

import pytest

DECAY = "--optimizer.layer_decay=0.75"


@pytest.fixture(scope="module")
def run(train, table):
    """Run of one epoch with layer-wise learning rate decay. Read-only."""
    data = ["--data=table-files", f"--data.train_files={table}", "--data.label_column=y", "--data.batch_size=12"]
    small = ["--model.encoder.num_input_channels=16", "--model.decoder.num_output_query_channels=16"]
    return train("--task=regression", *data, *small, DECAY, "--trainer.max_epochs=1")


@pytest.fixture
def copy(run, tmp_path):
    """Copy of the best checkpoint in another folder."""
    return shutil.copy(run.best, tmp_path / "copy.ckpt")


@pytest.mark.parametrize("command", ["validate", "test"])
@pytest.mark.parametrize("moved", [False, True])
def test_evaluation_needs_no_layer_decay(perceiver, run, copy, table, command, moved):
    files = [f"--data.test_files={table}"] if command == "test" else []
    result = perceiver(command, f"--ckpt_path={copy if moved else run.best}", *files)
    assert result.code == 0, result.err


@pytest.mark.slow
def test_resumed_run_has_the_saved_layer_decay(perceiver, load, copy):
    more = ("--trainer.max_epochs=2", "--optimizer.lr=0.02")
    result = perceiver("fit", f"--ckpt_path={copy}", *more)
    assert result.code == 0, result.err
    groups = load("logs/regression/version_0/checkpoints/last.ckpt")["optimizer_states"][0]["param_groups"]
    assert {round(group["lr"] / 0.02, 4) for group in groups} == {1.0, 0.75, 0.5625, 0.4219}


@pytest.mark.parametrize("given", ["0.5", "null"])
def test_another_layer_decay_is_refused(perceiver, copy, given):
    result = perceiver("fit", f"--ckpt_path={copy}", "--trainer.max_epochs=2", f"--optimizer.layer_decay={given}")
    assert result.error.startswith(f"--optimizer.layer_decay: {given}, but the checkpoint was saved with 0.75 (")
