"""Limits of training: which of max_steps and max_epochs apply, by the source of their values."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

LAST = Path("logs", "mlm", "version_0", "checkpoints", "last.ckpt")


@pytest.fixture
def limits(perceiver):
    """Return a function that returns max_epochs and max_steps of a command line."""

    def limits(*argv: str) -> tuple[int | None, int]:
        result = perceiver("fit", *argv, "--print_config")
        assert result.code == 0, result.err
        trainer = yaml.safe_load(result.out)["trainer"]
        return trainer["max_epochs"], trainer["max_steps"]

    return limits


@pytest.mark.parametrize(
    ("flags", "file", "expected"),
    [
        ([], "", (10, -1)),
        (["--trainer.max_steps=50000"], "", (-1, 50000)),
        ([], "max_steps: 7", (-1, 7)),
        (["--trainer.max_epochs=3"], "", (3, -1)),
        (["--trainer.max_epochs=3", "--trainer.max_steps=9"], "", (3, 9)),
        (["--trainer.max_steps=9"], "max_epochs: 3", (3, 9)),
        (["--trainer.max_steps=-1"], "", (10, -1)),
        (["--trainer.max_epochs=null", "--trainer.max_steps=9"], "", (None, 9)),
        (["--trainer.max_time=00:01:00:00"], "", (10, -1)),
    ],
)
def test_limit_of_the_user_replaces_the_default_of_the_other(flags, file, expected, limits, small, tmp_path):
    (tmp_path / "c.yaml").write_text(f"trainer: {{{file}}}\n")
    assert limits(*small, "--config=c.yaml", *flags) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], (10, 2000)), (["--trainer.max_epochs=3"], (3, -1)), (["--trainer.max_steps=5"], (-1, 5))],
)
def test_defaults_of_both_limits(flags, expected, limits, tmp_path):
    assert limits("--task=mlm", "--data=python-docs", f"--data.cache_dir={tmp_path}", *flags) == expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [([], (-1, 12)), (["--trainer.max_epochs=3"], (3, -1)), (["--trainer.max_steps=20"], (-1, 20))],
)
def test_limit_of_the_user_replaces_that_of_the_checkpoint(flags, expected, limits, trained, tmp_path):
    shutil.copytree(trained.folder.parents[1], tmp_path / "logs")
    assert limits("--ckpt_path=last", *flags) == expected


@pytest.mark.parametrize(("limit", "trained"), [("max_steps=8", "9 steps"), ("max_epochs=2", "3 epochs")])
def test_limit_below_the_checkpoint_is_rejected(limit, trained, regressor, perceiver, tmp_path):
    shutil.copytree(regressor.folder.parents[1], tmp_path / "logs")
    checkpoint = Path("logs", "regression", "version_0", "checkpoints", "last.ckpt")
    result = perceiver("fit", f"--ckpt_path={checkpoint}", f"--trainer.{limit}")
    assert result.error == (
        f"--trainer.{limit}: {checkpoint} has already trained {trained} (raise it, or start a new run with "
        f"--model.params={checkpoint})"
    )


@pytest.mark.slow
def test_run_that_ended_by_epochs_is_resumed_by_steps(fit, small, assert_same_training_state):
    flags = [*small, "--model.encoder.dropout=0.1", "--lr_scheduler=none", "--optimizer.lr=0.01"]
    whole = fit(*flags, "--trainer.max_steps=12", "--trainer.default_root_dir=whole")
    folder = fit(*flags, "--trainer.max_epochs=2")
    assert fit("--ckpt_path=last", "--trainer.max_steps=12") == folder
    assert_same_training_state(whole / "checkpoints" / "last.ckpt", LAST)


@pytest.mark.parametrize("option", ["max_time", "val_check_interval"])
def test_time_may_be_a_mapping_of_units(option, perceiver, small):
    flag = f'--trainer.{option}={{"hours": 1}}'
    result = perceiver("fit", *small, "--trainer.max_steps=1", flag, "--print_config")
    assert yaml.safe_load(result.out)["trainer"][option] == {"hours": 1}
    result = perceiver("fit", *small, "--trainer.max_steps=1", flag)
    assert result.code == 0, result.err
