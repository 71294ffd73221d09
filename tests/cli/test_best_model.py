"""The model of ``best.ckpt``: the one with the lowest validation loss, or the latest validated one."""

from __future__ import annotations

from pathlib import Path

import pytest

from perceiver_plugins.sdk.sizing import DataSize
from perceiver_plugins.table import TableFilesDataModule
from perceiver_plugins.table.sizing import FEW_VALIDATION_ROWS, choose_defaults, size_rule

CHECKPOINTS = Path("logs", "regression", "version_0", "checkpoints")
LATEST = "--checkpoint.best=latest"


@pytest.fixture
def worsening(perceiver, regressor):
    """Return a function that trains with a rate at which the loss rises, and returns the report."""

    def worsening(*flags: str) -> str:
        result = perceiver("fit", *regressor.flags, "--optimizer.lr=3", *flags)
        assert result.code == 0, result.err
        return result.out

    return worsening


@pytest.mark.slow
def test_lowest_loss_and_latest_model_differ(worsening, load):
    report = worsening("--trainer.max_epochs=4")
    steps = load(CHECKPOINTS / "last.ckpt")["global_step"]
    assert load(CHECKPOINTS / "best.ckpt")["global_step"] < steps
    assert "Best validation loss " in report
    report = worsening("--trainer.max_epochs=4", LATEST)
    assert load(CHECKPOINTS.parents[1] / "version_1" / "checkpoints" / "best.ckpt")["global_step"] == steps
    latest = report.partition("Last validation: val_loss ")[2].partition(",")[0]
    assert f"Latest validation loss {latest}: " in report


@pytest.mark.slow
def test_resumed_run_keeps_the_latest_model(worsening, perceiver, assert_same_training_state, tmp_path, monkeypatch):
    for name in ("whole", "resumed"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "whole")
    worsening("--trainer.max_epochs=4", LATEST)
    monkeypatch.chdir(tmp_path / "resumed")
    worsening("--trainer.max_epochs=2", LATEST)
    assert perceiver("fit", "--ckpt_path=last", "--trainer.max_epochs=4").code == 0
    assert_same_training_state(CHECKPOINTS / "best.ckpt", tmp_path / "whole" / CHECKPOINTS / "best.ckpt")


@pytest.mark.parametrize(
    ("rows", "choice"), [(FEW_VALIDATION_ROWS - 1, "latest"), (FEW_VALIDATION_ROWS, None), (None, None)]
)
def test_latest_model_is_the_default_with_few_validation_rows(rows, choice):
    defaults = choose_defaults(DataSize(300, num_validation_examples=rows))
    assert defaults.get("checkpoint.best") == choice


@pytest.mark.parametrize(("patience", "choice"), [(None, "latest"), (3, None)])
def test_rule_counts_the_validation_rows_of_the_data(patience, choice, table):
    data = TableFilesDataModule(str(table), label_column="y")
    assert data.num_validation_examples == 4
    found = size_rule(data, "regression", {"task.patience": patience})
    assert found is not None
    assert found.defaults.get("checkpoint.best") == choice
