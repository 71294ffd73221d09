"""Exact resuming from any step, without the command line."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint

from perceiver_plugins.text import LitLanguageModel

STEPS = 11  # two epochs and a step

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*not resumable.*", "ignore:.*many workers.*", "ignore:.*exists and is.*", "ignore:.*LeafSpec.*"
)


class KilledError(Exception):
    """Raised to end a run."""


class Kill(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KilledError


@pytest.fixture
def train(tiny_config, tiny_data, quiet_trainer, tmp_path):
    """Function that trains to the end or until killed, optionally from a checkpoint; returns the trainer."""

    def train(name: str, kill: int = -1, resume: bool = False, data=None, **options):
        folder = tmp_path / name
        seed_everything(99 if resume else 3, verbose=False)  # a resumed run keeps its seed
        module = LitLanguageModel.create(
            tiny_config(dropout=0.2),
            optimizer={"name": "AdamW", "lr": 0.01},
            lr_scheduler={"name": "CosineWithWarmup", "warmup_steps": 3},
            num_samples=0,
        )
        saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=2, save_top_k=0)
        options = {"max_steps": STEPS, "callbacks": [saving, Kill(kill)], "enable_checkpointing": True, **options}
        trainer = quiet_trainer(**options)
        path = folder / "last.ckpt" if resume and (folder / "last.ckpt").exists() else None
        try:
            datamodule = tiny_data(seed=3, random_train_shift=True, **(data or {}))
            trainer.fit(module, datamodule=datamodule, ckpt_path=path, weights_only=True)
        except KilledError:
            assert trainer.global_step == kill
        return trainer

    return train


def state(trainer) -> dict:
    return {
        "weights": dict(trainer.lightning_module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict(),
        "rates": trainer.lr_scheduler_configs[0].scheduler.get_last_lr(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}], ids=["each batch", "accumulated"])
def test_killed_run_is_resumed_exactly(train, options):
    options = options | {"max_steps": STEPS // options.get("accumulate_grad_batches", 1)}
    alone = state(train("alone", **options))
    last = options["max_steps"] - 1
    for step in (3, last):
        killed = train(f"killed {step}", kill=step, **options)
        assert killed.global_step == step
        resumed = train(f"killed {step}", resume=True, **options)
        assert resumed.global_step == options["max_steps"]
        torch.testing.assert_close(state(resumed), alone, rtol=0, atol=0)


@pytest.mark.slow
def test_run_killed_twice_is_resumed_exactly(train):
    alone = state(train("alone"))
    train("killed", kill=4)
    train("killed", kill=9, resume=True)
    torch.testing.assert_close(state(train("killed", resume=True)), alone, rtol=0, atol=0)


@pytest.mark.slow
def test_resume_with_other_num_workers_is_exact(train):
    alone = state(train("alone"))
    train("killed", kill=6, data={"num_workers": 1})
    torch.testing.assert_close(state(train("killed", resume=True)), alone, rtol=0, atol=0)


def test_other_seed_gives_other_weights(train):
    weights = state(train("one", max_steps=3))["weights"]
    other = state(train("other", resume=True, max_steps=3))["weights"]  # nothing to resume: a seed of its own
    assert any(not torch.equal(value, other[key]) for key, value in weights.items())
