"""Runs that are killed or interrupted, and resumed without a difference."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from environments import Result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

KILLED = "train 3 SIGKILL"
"""Within an epoch."""

KILLED_LATER = "validation 10 SIGKILL"
"""In the validation after a step with a checkpoint."""

INTERRUPTED = "within 7 SIGINT"

ALLOW = "--allow=stopping"

CHECKPOINTS = Path("logs", "mlm", "version_0", "checkpoints")


@pytest.fixture(scope="module")
def flags(small) -> list[str]:
    """Flags of a run with all sources of randomness: dropout, shifted texts and changing masks."""
    chance = ["--model.encoder.dropout=0.1", "--model.decoder.dropout=0.1", "--data.random_train_shift=true"]
    return [
        *small,
        *chance,
        "--trainer.max_steps=12",
        "--trainer.callbacks=stopping.Stop",
        ALLOW,
        "--checkpoint.every_n_steps=2",
    ]


@pytest.fixture(scope="module")
def stopped(fork, run_in, flags, tmp_path_factory):
    """Folder and result of stopped runs by step and signal, and of an uninterrupted run under "never"."""
    stops = (KILLED, KILLED_LATER, INTERRUPTED, "never")
    folders = {stop: tmp_path_factory.mktemp(stop.replace(" ", "-")) for stop in stops}
    results = {
        **{stop: Result(fork(folders[stop], "fit", *flags, STOP_AT=stop), "", "") for stop in (KILLED, KILLED_LATER)},
        INTERRUPTED: run_in(folders[INTERRUPTED], "fit", *flags, STOP_AT=INTERRUPTED),
        "never": run_in(folders["never"], "fit", *flags),
    }
    return {stop: (folders[stop], result) for stop, result in results.items()}


@pytest.fixture
def resumable(stopped, tmp_path):
    """Return a function that copies a stopped run into the current folder and returns its result."""

    def resumable(stop: str):
        folder, result = stopped[stop]
        shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
        return result

    return resumable


@pytest.fixture
def whole(stopped) -> Path:
    """Folder of checkpoints of the uninterrupted run."""
    folder, result = stopped["never"]
    assert result.code == 0, result.err
    return folder / CHECKPOINTS


@pytest.mark.parametrize("stop", [KILLED, KILLED_LATER])
def test_killed_run_resumes_to_the_same_state(resumable, whole, fit, load, assert_same_training_state, stop):
    assert resumable(stop).code == -9
    step = int(stop.split()[1])
    at_death = load(CHECKPOINTS / "last.ckpt")
    assert 0 <= step - at_death["global_step"] <= 2
    folder = fit("--ckpt_path=last", ALLOW)
    assert folder.name == "version_0", "a resumed run must use its own folder"
    for name in ("last.ckpt", "best.ckpt"):
        assert_same_training_state(CHECKPOINTS / name, whole / name)
    assert load(CHECKPOINTS / "best.ckpt")["perceiver"] == load(whole / "best.ckpt")["perceiver"]


def test_resumed_run_continues_its_logs(resumable, fit):
    resumable("train 3 SIGKILL")
    folder = fit("--ckpt_path=last", ALLOW)
    events = EventAccumulator(str(folder)).Reload()
    assert {event.step for event in events.Scalars("train_loss")} == set(range(12))
    assert [event.step for event in events.Scalars("val_loss")] == [4, 9]


def test_run_is_resumed_from_another_folder(resumable, whole, fit, assert_same_training_state, tmp_path, monkeypatch):
    resumable("train 3 SIGKILL")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = fit(f"--ckpt_path={tmp_path / CHECKPOINTS / 'last.ckpt'}", ALLOW)
    assert_same_training_state(folder / "checkpoints" / "last.ckpt", whole / "last.ckpt")


def assert_resumes_to_the_same_state(fit, whole, assert_same) -> None:
    fit("--ckpt_path=last", ALLOW)
    for name in ("last.ckpt", "best.ckpt"):
        assert_same(CHECKPOINTS / name, whole / name)


def assert_clean_end(result, code: int = 130) -> None:
    assert result.code == code
    assert result.err.splitlines()[-1] == "perceiver: interrupted"
    assert f"perceiver fit --ckpt_path={CHECKPOINTS / 'last.ckpt'} {ALLOW}" in result.err
    assert "Traceback" not in result.err


def test_interrupted_run_finishes_its_step_and_resumes(resumable, whole, fit, load, assert_same_training_state):
    assert_clean_end(resumable(INTERRUPTED))
    assert load(CHECKPOINTS / "last.ckpt")["global_step"] == 8
    assert_resumes_to_the_same_state(fit, whole, assert_same_training_state)


def test_last_step_before_an_interrupt_is_logged(resumable, fit):
    resumable(INTERRUPTED)
    events = EventAccumulator(str(fit("--ckpt_path=last", ALLOW))).Reload()
    assert [event.step for event in events.Scalars("train_loss")] == list(range(12))


@pytest.mark.parametrize(
    ("stop", "saved", "code"),
    [("train 7 SIGINT", 7, 130), ("validation 5 SIGINT", 5, 130), ("train 7 SIGTERM", 8, 143)],
)
def test_interrupt_between_steps_saves_the_state(
    perceiver, flags, whole, fit, load, assert_same_training_state, monkeypatch, stop, saved, code
):
    monkeypatch.setenv("STOP_AT", stop)
    assert_clean_end(perceiver("fit", *flags, "--checkpoint.every_n_steps=0"), code)
    assert load(CHECKPOINTS / "last.ckpt")["global_step"] == saved
    monkeypatch.delenv("STOP_AT")
    assert_resumes_to_the_same_state(fit, whole, assert_same_training_state)


def test_killed_run_with_workers_resumes_its_data(fork, flags, whole, fit, assert_same_training_state, tmp_path):
    # The default schedule needs the number of steps, which starts the workers early.
    both = [*flags, "--data.num_workers=2", "--trainer.max_epochs=10"]
    assert fork(tmp_path, "fit", *both, STOP_AT="train 8 SIGKILL") == -9
    fit("--ckpt_path=last", ALLOW)
    assert_same_training_state(CHECKPOINTS / "last.ckpt", whole / "last.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [5, 7])
def test_extended_run_equals_a_longer_run(small, fit, load, steps):
    flags = [*small, "--lr_scheduler=none", "--model.encoder.dropout=0.1", "--data.random_train_shift=true"]
    longer = fit(*flags, "--trainer.max_steps=12")
    fit(*flags, f"--trainer.max_steps={steps}")
    folder = fit("--ckpt_path=last", "--trainer.max_steps=12")
    assert folder.name == "version_1"
    for part in ("state_dict", "optimizer_states"):
        one, other = (load(run / "checkpoints" / "last.ckpt")[part] for run in (longer, folder))
        torch.testing.assert_close(one, other, rtol=0, atol=0)


# Flags override the checkpoint


@pytest.fixture
def resume(resumable, fit, load):
    """Return a function that resumes a run of three steps for one more, with further flags."""

    def resume(*argv: str):
        resumable("train 3 SIGKILL")
        folder = fit("--ckpt_path=last", "--trainer.max_steps=4", ALLOW, *argv)
        return folder, load(folder / "checkpoints" / "last.ckpt")

    return resume


def test_resumed_run_keeps_options(resume, flags):
    _, checkpoint = resume()
    run = checkpoint["perceiver"]["run"]
    assert checkpoint["global_step"] == 4
    assert run["model"]["encoder"]["dropout"] == 0.1
    assert run["data"]["random_train_shift"] is True
    assert run["checkpoint"]["every_n_steps"] == 2


def test_resumed_run_can_train_longer(trained, perceiver, tmp_path, load):
    shutil.copytree(trained.folder.parents[1], tmp_path / "logs")
    result = perceiver("fit", "--ckpt_path=last", "--trainer.max_steps=17")
    assert result.code == 0, result.err
    assert "Trained for 17 steps." in result.out
    assert load(CHECKPOINTS / "last.ckpt")["global_step"] == 17


def rates(folder: Path) -> dict[int, float]:
    return {event.step: event.value for event in EventAccumulator(str(folder)).Reload().Scalars("learning_rate")}


def test_new_learning_rate_rescales_the_schedule(resume):
    folder, checkpoint = resume("--optimizer.lr=0.5")
    after = {step: rate for step, rate in rates(folder).items() if step >= 2}
    assert after == pytest.approx({2: 0.5 * 2 / 100, 3: 0.5 * 3 / 100})
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    assert [group["initial_lr"] for group in groups] == [0.5, 0.5]
    assert checkpoint["optimizer_states"][0]["state"][0]["step"] == 4  # its moments are kept


@pytest.mark.slow
def test_new_learning_rate_without_a_schedule(small, fit, load):
    flags = [*small, "--lr_scheduler=none", "--optimizer.lr=0.01", "--trainer.max_steps=2"]
    fit(*flags)
    folder = fit("--ckpt_path=last", "--optimizer.lr=0.03", "--optimizer.weight_decay=0.2", "--trainer.max_steps=4")
    assert rates(folder) == pytest.approx({0: 0.01, 1: 0.01, 2: 0.03, 3: 0.03})
    groups = load(folder / "checkpoints" / "last.ckpt")["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0]


def test_new_optimizer_starts_without_state(resume):
    _, checkpoint = resume("--optimizer=SGD", "--optimizer.lr=0.1", "--optimizer.momentum=0.5")
    (group,) = checkpoint["optimizer_states"][0]["param_groups"]
    assert group["momentum"] == 0.5
    assert "betas" not in group
    assert set(checkpoint["optimizer_states"][0]["state"][0]) == {"momentum_buffer"}


@pytest.mark.parametrize("schedule", ["none", "StepLR", "CosineWithWarmup", "ReduceLROnPlateau"])
def test_new_schedule_continues_from_the_step(resume, schedule):
    options = {"StepLR": ["--lr_scheduler.step_size=1"], "CosineWithWarmup": ["--lr_scheduler.warmup_steps=10"]}
    folder, _ = resume(f"--lr_scheduler={schedule}", *options.get(schedule, []))
    after = [rates(folder)[step] for step in (2, 3)]
    factors = {"CosineWithWarmup": (0.2, 0.3), "none": (1, 1), "ReduceLROnPlateau": (1, 1), "StepLR": (0.01, 0.001)}
    assert after == pytest.approx([2e-3 * factor for factor in factors[schedule]])


def test_new_dropout_is_applied(resume, whole, load):
    _, with_dropout = resume()
    _, without = resume("--model.encoder.dropout=0", "--model.decoder.dropout=0")
    assert without["perceiver"]["model"]["encoder"]["dropout"] == 0
    latents = "model.encoder.latents"
    assert (with_dropout["state_dict"][latents] != without["state_dict"][latents]).any()


@pytest.mark.slow
def test_schedule_can_be_added(small, fit, load):
    fit(*small, "--optimizer.lr=0.1", "--lr_scheduler=none", "--trainer.max_steps=4")
    schedule = ["--lr_scheduler=CosineWithWarmup", "--lr_scheduler.training_steps=8"]
    fit("--ckpt_path=last", "--trainer.max_steps=6", *schedule)
    state = load(CHECKPOINTS / "last.ckpt")
    assert state["lr_schedulers"][0]["last_epoch"] == 6
    expected = 0.1 * (1 + math.cos(math.pi * 6 / 8)) / 2
    assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(expected)
