"""Causal language models: killed runs that are resumed, and runs of two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ALLOW = "--allow=stopping"

CHECKPOINTS = Path("logs", "clm", "version_0", "checkpoints")


@pytest.fixture(scope="module")
def flags(texts: Path) -> list[str]:
    """Flags of a run with dropout, prefix dropout and batches of different lengths."""
    return [
        "--task=clm",
        "--data=text-files",
        f"--data.train_files={texts / 'train.txt'}",
        f"--data.val_files={texts / 'val.txt'}",
        "--data.max_seq_len=31",
        "--data.batch_size=2",
        "--model.max_seq_len=31",
        "--model.num_latents=10",
        "--model.num_latent_channels=16",
        "--model.encoder.num_input_channels=16",
        "--model.encoder.num_self_attention_layers_per_block=1",
        "--model.encoder.dropout=0.1",
        "--task.short_share=0.5",
        "--lr_scheduler.warmup_steps=2",
        "--trainer.max_steps=12",
        "--trainer.accelerator=cpu",
        "--trainer.log_every_n_steps=1",
        "--trainer.val_check_interval=4",
        "--trainer.enable_progress_bar=false",
        "--seed_everything=3",
    ]


@pytest.fixture(scope="module")
def stoppable(flags: list[str]) -> list[str]:
    """Flags of a run that is killed at the point in the environment variable STOP_AT."""
    return [*flags, "--trainer.callbacks=stopping.Stop", ALLOW, "--checkpoint.every_n_steps=2"]


@pytest.fixture(scope="module")
def whole(run_in, stoppable: list[str], tmp_path_factory) -> Path:
    """Folder of an uninterrupted run. Read-only."""
    folder = tmp_path_factory.mktemp("whole")
    assert run_in(folder, "fit", *stoppable).code == 0
    return folder


@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_run_resumes_to_the_same_state(
    fork, perceiver, stoppable, whole, assert_same_training_state, tmp_path, monkeypatch, num_workers
):
    killed = tmp_path / "killed"
    killed.mkdir()
    assert fork(killed, "fit", *stoppable, f"--data.num_workers={num_workers}", STOP_AT="train 7 SIGKILL") == -9
    monkeypatch.chdir(killed)
    assert perceiver("fit", "--ckpt_path=last", ALLOW).code == 0
    for name in ("last.ckpt", "best.ckpt"):
        assert_same_training_state(killed / CHECKPOINTS / name, whole / CHECKPOINTS / name)


def test_two_processes_train_as_one_process(fork, run_in, flags, tmp_path):
    still = [*flags, "--model.prefix_dropout=0", "--model.encoder.dropout=0", "--trainer.max_steps=4"]
    still.append("--trainer.val_check_interval=2")
    one, two = (tmp_path / name for name in ("one", "two"))
    for folder in (one, two):
        folder.mkdir()
    assert run_in(one, "fit", *still, "--data.batch_size=2").code == 0
    strategy = ["--trainer.devices=2", "--trainer.strategy=ddp_fork"]
    assert fork(two, "fit", *still, *strategy, "--data.batch_size=1") == 0
    curves = []
    for folder in (one, two):
        events = EventAccumulator(str(folder / CHECKPOINTS.parent)).Reload()
        curves.append({name: [event.value for event in events.Scalars(name)] for name in ("train_loss", "val_loss")})
    for name, number in (("train_loss", 4), ("val_loss", 2)):
        assert len(curves[0][name]) == number
        assert curves[1][name] == pytest.approx(curves[0][name], abs=1e-5)


@pytest.mark.slow
def test_run_continues_with_more_data_before_its_first_validation(perceiver, flags, texts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (texts / "train.txt").read_bytes()
    (tmp_path / "train.txt").write_bytes(text)
    own = [f"--data.train_files={tmp_path / 'train.txt'}", "--trainer.max_steps=3", "--trainer.val_check_interval=1.0"]
    assert perceiver("fit", *flags, *own).code == 0
    assert not (CHECKPOINTS / "best.ckpt").exists()
    (tmp_path / "train.txt").write_bytes(text * 2)
    with pytest.warns(UserWarning, match="without the rest of epoch 0"):
        result = perceiver("fit", "--ckpt_path=last", "--trainer.max_steps=6")
    assert result.code == 0, result.err
    assert (CHECKPOINTS / "best.ckpt").exists()
    assert "Trained for 6 steps" in result.out
