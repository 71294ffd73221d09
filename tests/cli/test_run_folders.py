"""Each run has a folder of its own, by which "last" and "best" find its checkpoints and TensorBoard its settings."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_cli.run_folder import prepare_run_folder, removed_if_unused


def prepared(*loggers) -> list[str]:
    """Return the versions that a run's loggers get."""
    trainer = Trainer(logger=list(loggers) or False, accelerator="cpu", enable_progress_bar=False)
    prepare_run_folder(trainer, Path("logs", "mlm"), None)
    return [logger.version for logger in loggers]


@pytest.mark.parametrize("logger_type", [TensorBoardLogger, CSVLogger])
def test_concurrent_runs_have_separate_folders(logger_type):
    loggers = [logger_type("logs", name="mlm") for _ in range(16)]
    barrier = threading.Barrier(len(loggers))
    trainers = [Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False) for logger in loggers]

    def start(trainer):
        barrier.wait()
        prepare_run_folder(trainer, Path("logs", "mlm"), None)

    threads = [threading.Thread(target=start, args=[trainer]) for trainer in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {logger.version for logger in loggers} == {f"version_{number}" for number in range(16)}
    assert all(Path(logger.log_dir).is_dir() for logger in loggers)


def test_loggers_of_a_run_share_its_folder():
    pair = TensorBoardLogger("logs", name="mlm", sub_dir="events"), CSVLogger("logs", name="mlm")
    assert prepared(*pair) == ["version_0", "version_0"]
    assert prepared(CSVLogger("logs", name="mlm"), CSVLogger("other")) == ["version_1", "version_0"]
    assert prepared(TensorBoardLogger("logs", name="mlm", version=1)) == [1]


@pytest.mark.parametrize(
    ("step", "files", "is_kept"),
    [
        (0, [], False),
        (0, ["config.yaml", "hparams.yaml", "events.out.tfevents.1.vm.2.0"], False),
        (0, ["config.yaml", "checkpoints/last.ckpt"], True),
        (0, ["notes.txt"], True),
        (1, ["config.yaml"], True),
    ],
)
def test_folder_of_a_failed_run_is_removed_if_unused(step, files, is_kept, tmp_path):
    folder = tmp_path / "version_0"
    for file in ["", *files]:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch() if file else folder.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="failed"), removed_if_unused([folder], SimpleNamespace(global_step=step)):
        raise ValueError("failed")
    assert folder.exists() is is_kept


@pytest.mark.slow
def test_run_that_cannot_start_leaves_no_folder(perceiver, small):
    assert perceiver("fit", *small, "--trainer.accumulate_grad_batches=0").code != 0
    assert not list(Path().glob("logs/*/version_*"))


@pytest.mark.slow
def test_runs_without_logger_have_separate_folders(perceiver, fit, regressor):
    flags = [*regressor.flags, "--trainer.logger=false", "--trainer.max_epochs=1"]
    assert [str(fit(*flags)) for _ in range(2)] == ["logs/regression/version_0", "logs/regression/version_1"]
    assert Path("logs/regression/version_0/config.yaml").is_file()
    assert fit("--ckpt_path=last", "--trainer.max_epochs=2").name == "version_1"


def test_fast_dev_run_leaves_no_files(perceiver, regressor):
    assert perceiver("fit", *regressor.flags, "--trainer.fast_dev_run=true").code == 0
    assert list(Path.cwd().iterdir()) == []


def test_config_is_logged_as_hyperparameters(regressor):
    saved = yaml.safe_load((regressor.folder / "hparams.yaml").read_text())
    assert saved["optimizer.lr"] == 0.01
    assert saved["model.num_latents"] == 4
    summaries = EventAccumulator(str(regressor.folder)).Reload().summary_metadata
    assert any(name.startswith("_hparams_/experiment") for name in summaries)


# The checkpoint that a name means


def add_run(name: str, started: int, *checkpoints: str, task: str = "mlm") -> Path:
    folder = Path("logs", name)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"task:\n  name: {task}\n")
    os.utime(folder / "config.yaml", (started, started))
    for checkpoint in checkpoints:
        torch.save({}, folder / "checkpoints" / f"{checkpoint}.ckpt")
    return folder


def test_older_run_is_not_used_instead_of_the_newest(perceiver):
    add_run("mlm/version_0", 1, "best", "last")
    add_run("regression/version_0", 2, task="regression")
    for command in ("fit", "validate", "predict"):
        line = perceiver(command, "--ckpt_path=best").error
        assert line.startswith(
            "--ckpt_path=best: the newest run, logs/regression/version_0, has no best.ckpt: it failed"
        )
        assert "an older run has --ckpt_path=logs/mlm/version_0/checkpoints/" in line


def test_newest_run_is_that_of_the_task(perceiver):
    add_run("lightning_logs/version_0", 1, "last")
    add_run("lightning_logs/version_1", 2, "last", task="regression")
    line = perceiver("predict", "--task=mlm", "--ckpt_path=last").error
    assert line.startswith("logs/lightning_logs/version_0/checkpoints/last.ckpt: not a checkpoint of")
    assert (
        "no run of task 'image-classification' in logs"
        in perceiver("predict", "--task=image-classification", "--ckpt_path=last").error
    )


def test_run_without_validation_has_no_best_checkpoint(perceiver):
    folder = add_run("mlm/version_0", 1, "last")
    line = perceiver("predict", "--ckpt_path=best").error
    assert "no validation has run" in line
    assert f"--ckpt_path={folder}/checkpoints/last.ckpt exists" in line


def test_command_reports_its_checkpoint(perceiver, regressor, table, monkeypatch):
    monkeypatch.chdir(regressor.folder.parents[2])
    result = perceiver("predict", "--ckpt_path=last", str(table))
    assert result.err == "perceiver: predicting with logs/regression/version_0/checkpoints/last.ckpt\n"


# Signals and files at work


@pytest.mark.parametrize("ignored", [False, True])
def test_hangup_stops_a_run_like_sigterm(perceiver, small, monkeypatch, ignored):
    monkeypatch.setenv("STOP_AT", "train 3 SIGHUP")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        flags = [*small, "--trainer.max_steps=6", "--trainer.callbacks=stopping.Stop", "--allow=stopping"]
        result = perceiver("fit", *flags)
        assert signal.getsignal(signal.SIGHUP) == (signal.SIG_IGN if ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)
    last = torch.load("logs/mlm/version_0/checkpoints/last.ckpt", weights_only=True)
    assert (result.code, last["global_step"]) == ((0, 6) if ignored else (143, 4)), result.err


def test_logs_are_flushed_with_each_checkpoint(fork, small, tmp_path):
    flags = [*small, "--trainer.max_steps=9", "--trainer.callbacks=stopping.Stop", "--allow=stopping"]
    assert fork(tmp_path, "fit", *flags, "--checkpoint.every_n_steps=3", STOP_AT="train 7 SIGKILL") == -9
    events = EventAccumulator("logs/mlm/version_0").Reload()
    assert {event.step for event in events.Scalars("train_loss")} >= set(range(5))
    assert [event.step for event in events.Scalars("val_loss")] == [4]
