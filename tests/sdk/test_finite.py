"""Training ends if the loss or the weights are not finite; such weights are neither saved nor used."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from perceiver_plugins.sdk.tasks.callbacks import MovingAverage
from perceiver_plugins.sdk.tasks.finite import FiniteGuard, NonFiniteError, check_saved_weights


class Line(LightningModule):
    """Module that fits a line; ``bad`` is the (stage, batch) with NaN."""

    def __init__(self, bad: tuple[str, int]):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)
        self.unused = torch.nn.Parameter(torch.zeros(2))
        self.register_buffer("mask", torch.tensor([0.0, -math.inf]))
        self.bad = bad

    def loss(self, batch, stage, index):
        return self.line(batch).square().mean() * (math.nan if (stage, index) == self.bad else 1.0)

    def training_step(self, batch, batch_idx):
        if ("weights", batch_idx) == self.bad:
            self.unused.data.fill_(math.inf)
        return self.loss(batch, "train", batch_idx)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch, "val", batch_idx))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.125)

    def on_save_checkpoint(self, checkpoint):
        check_saved_weights(self.trainer, self, checkpoint)


@pytest.fixture
def train(tmp_path):
    """Function that trains on eight batches with a validation after four, and returns the saved checkpoints."""

    def train(*bad, callbacks=(), **options) -> dict[str, dict]:
        saving = [
            ModelCheckpoint(tmp_path, "best", "val_loss"),
            ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=2, save_top_k=-1),
        ]
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        defaults = {"max_epochs": 1, "val_check_interval": 4, "num_sanity_val_steps": 0, "log_every_n_steps": 3}
        trainer = Trainer(callbacks=[*callbacks, FiniteGuard(), *saving], **quiet, **(defaults | options))
        loader = DataLoader(torch.linspace(-1, 1, 16)[:, None], batch_size=2)
        try:
            trainer.fit(Line(bad or ("never", 0)), loader, loader)
        finally:
            files = {path.stem: torch.load(path, weights_only=True) for path in Path(tmp_path).glob("*.ckpt")}
            weights = [value for file in files.values() for name, value in file["state_dict"].items() if name != "mask"]
            assert all(value.isfinite().all() for value in weights)
        return files

    return train


def test_finite_run_completes(train):
    assert {"best", "step=2", "step=8"} <= train().keys()


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("batch", [0, 5, 7])
def test_non_finite_loss_ends_training_at_its_step(train, batch, batches, average):
    callbacks = [MovingAverage(0.5)] if average else []
    with pytest.raises(NonFiniteError) as error:
        train("train", batch, accumulate_grad_batches=batches, callbacks=callbacks)
    line = str(error.value)
    assert line.startswith(f"step {batch // batches}: the training loss is not finite (NaN or infinite)")
    assert "--optimizer.lr, now 0.125" in line


@pytest.mark.parametrize("batch", [0, 5, 7])
def test_check_on_other_devices_is_deferred(train, monkeypatch, batch):
    """As on a GPU: the loss is not read after each batch."""
    original = FiniteGuard.on_before_backward

    def without_reading(self, trainer, module, loss):
        with monkeypatch.context() as patch:
            patch.setattr(self, "_check_loss", lambda _: None)
            original(self, trainer, module, loss)

    monkeypatch.setattr(FiniteGuard, "on_before_backward", without_reading)
    with pytest.raises(NonFiniteError, match=f"step {batch}: the training loss is not finite"):
        train("train", batch)


def test_non_finite_validation_loss_ends_training(train):
    with pytest.raises(NonFiniteError, match="step 4: the validation loss is nan"):
        train("val", 2)


@pytest.mark.parametrize("batch", [1, 6])
def test_non_finite_weights_end_training(train, batch):
    with pytest.raises(NonFiniteError, match="the weights are not finite"):
        train("weights", batch)
