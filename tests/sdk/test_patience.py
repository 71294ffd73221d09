"""Early stopping by the validation loss."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from perceiver_cli.checkpoints import LastCheckpoint
from perceiver_plugins.text import LitLanguageModel
from perceiver_registry import UserError

EPOCHS, STEPS_PER_EPOCH = 9, 5

INTERVALS = {
    "epochs": {},
    "parts of an epoch": {"val_check_interval": 0.4},
    "steps": {"val_check_interval": 3, "check_val_every_n_epoch": None},
}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*not resumable.*", "ignore:.*many workers.*", "ignore:.*LeafSpec.*", "ignore:.*monitored key.*"
)


class Copies(Callback):
    """Copy a checkpoint at the start of each step, as it is when the run is killed there."""

    def __init__(self, last: Path):
        self.last = last

    def on_train_batch_start(self, trainer, *_):
        if self.last.exists():
            shutil.copy(self.last, self.last.with_name(f"{trainer.global_step}.ckpt"))


class Losses(Callback):
    """Record the validation losses with their steps."""

    def __init__(self):
        self.losses: list[tuple[int, float]] = []

    def on_validation_end(self, trainer, module):
        if not trainer.sanity_checking:
            self.losses.append((trainer.global_step, float(trainer.callback_metrics["val_loss"])))

    def step_of_end(self, patience: int) -> int:
        """Step of the validation that exhausts the patience."""
        best, since = float("inf"), 0
        for step, loss in self.losses:
            best, since = (loss, 0) if loss < best else (best, since + 1)
            if since == patience:
                return step
        raise AssertionError("the loss fell to the end")


@pytest.fixture
def train(tiny_config, tiny_data, quiet_trainer, tmp_path):
    """Function that trains to the end, optionally from a checkpoint; returns steps and losses."""

    def train(name: str, patience: int | None = None, resume: bool = False, **options):
        seed_everything(4, verbose=False)
        module = LitLanguageModel.create(
            tiny_config(dropout=0.2), optimizer={"name": "AdamW", "lr": 0.05}, num_samples=0, patience=patience
        )
        last = tmp_path / name / "last.ckpt"
        saving = [ModelCheckpoint(last.parent, save_top_k=0), LastCheckpoint(2)]  # the first one sets the folder
        callbacks = [*saving, Copies(last), losses := Losses()]
        trainer = quiet_trainer(max_epochs=EPOCHS, enable_checkpointing=True, callbacks=callbacks, **options)
        data = tiny_data(seed=3, val_files=str(tmp_path / "val.txt"))
        trainer.fit(module, datamodule=data, ckpt_path=last if resume else None, weights_only=True)
        return trainer.global_step, losses

    return train


@pytest.mark.slow
@pytest.mark.parametrize(("name", "patience"), [("epochs", 1), ("epochs", 2), ("parts of an epoch", 3), ("steps", 2)])
def test_training_ends_when_patience_is_exhausted(train, name, patience):
    intervals = INTERVALS[name]
    steps, losses = train("to the end", **intervals)
    assert steps == EPOCHS * STEPS_PER_EPOCH
    expected = losses.step_of_end(patience)
    assert expected < steps
    ended, losses_of_it = train("with patience", patience, **intervals)
    assert ended == expected
    assert losses_of_it.losses == [(step, loss) for step, loss in losses.losses if step <= expected]


@pytest.mark.slow
@pytest.mark.parametrize(
    "intervals",
    [pytest.param(value, id=name) for name, value in INTERVALS.items()],
)
def test_resumed_run_ends_at_the_same_step(train, intervals, tmp_path):
    alone, _ = train("alone", 2, **intervals)
    weights = torch.load(tmp_path / "alone" / "last.ckpt", weights_only=True)["state_dict"]
    for step in (5, alone - 5, alone - 1):
        name = f"killed {step}"
        (tmp_path / name).mkdir()
        shutil.copy(tmp_path / "alone" / f"{step}.ckpt", tmp_path / name / "last.ckpt")
        assert train(name, 2, resume=True, **intervals)[0] == alone
        resumed = torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"]
        torch.testing.assert_close(resumed, weights, rtol=0, atol=0)


@pytest.mark.parametrize("patience", [0, -1])
def test_patience_out_of_range_is_reported(tiny_config, patience):
    with pytest.raises(UserError, match=f"patience={patience} must be at least 1"):
        LitLanguageModel.create(tiny_config(), patience=patience)
