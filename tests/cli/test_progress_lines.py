"""Progress of runs without a terminal."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from perceiver_cli import trainer
from perceiver_cli.progress import LogProgress
from perceiver_registry import progress

LINE = re.compile(
    r"perceiver: step (\d+)/12 \(\d+ %\), [\d.e+-]+ steps/s(, \d+ s left)?, epoch \d+, train_loss [\d.]+"
    r"(, val_loss [\d.]+)?, learning_rate [\d.e-]+"
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_AFTER", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)


@pytest.fixture
def flags(small):
    """Flags of a small run without those about progress."""
    return [flag for flag in small if "enable_progress_bar" not in flag]


def steps_of(err: str) -> list[int]:
    lines = [line for line in err.splitlines() if line.startswith("perceiver: step")]
    return [int(LINE.fullmatch(line)[1]) for line in lines]


@pytest.mark.slow
def test_steps_are_printed_and_continue_in_a_resumed_run(perceiver, flags):
    result = perceiver("fit", *flags, "--trainer.max_steps=2", "--trainer.max_epochs=-1")
    assert "perceiver: step 1/2 (50 %), " in result.err
    result = perceiver("fit", "--ckpt_path=last", "--trainer.max_steps=12")
    assert steps_of(result.err) == list(range(3, 13))


@pytest.mark.slow
def test_total_steps_are_computed_from_epochs(perceiver, flags):
    result = perceiver("fit", *flags, "--trainer.max_epochs=4", "--trainer.accumulate_grad_batches=2")
    assert max(steps_of(result.err)) == 12


@pytest.mark.slow
def test_evaluation_batches_are_printed(perceiver, flags):
    result = perceiver("fit", *flags, "--trainer.max_epochs=1")
    assert re.search(r"^perceiver: validation batch 1/\d+ \(\d+ %\), ", result.err, flags=re.MULTILINE)
    result = perceiver("test", "--ckpt_path=best")
    assert re.search(r"^perceiver: test batch 1/\d+ \(\d+ %\), ", result.err, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("terminal", "options", "lines"),
    [(False, {}, True), (True, {}, False), (False, {"enable_progress_bar": False}, False)],
)
def test_lines_are_printed_without_a_terminal_only(monkeypatch, terminal, options, lines):
    monkeypatch.setattr(trainer, "has_terminal", lambda: terminal)
    callbacks = trainer._progress({"callbacks": [], "enable_progress_bar": None} | options)
    assert [type(callback) for callback in callbacks] == [LogProgress] * lines


def test_configured_progress_bar_is_kept(monkeypatch):
    assert trainer._progress({"callbacks": [LogProgress()], "enable_progress_bar": None}) == []


def test_only_the_first_process_reports():
    bar = LogProgress()
    assert not bar._shown(SimpleNamespace(is_global_zero=False))
    assert bar._shown(SimpleNamespace(is_global_zero=True))
    bar.disable()
    assert not bar._shown(SimpleNamespace(is_global_zero=True))
