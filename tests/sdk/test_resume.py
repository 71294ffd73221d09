"""A run that died at any step goes on as one left alone, from Python as well."""

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


class DeathError(Exception):
    """What happens to a run."""


class Die(Callback):
    def __init__(self, step: int):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise DeathError


@pytest.fixture
def train(tiny_config, tiny_data, quiet_trainer, tmp_path):
    """Trains to the end or to death, from a checkpoint or not, and returns the trainer."""

    def train(name: str, die: int = -1, resume: bool = False, data=None, **options):
        folder = tmp_path / name
        seed_everything(99 if resume else 3, verbose=False)  # a resumed run has its first seed, whatever is set now
        module = LitLanguageModel.create(
            tiny_config(dropout=0.2),
            optimizer={"name": "AdamW", "lr": 0.01},
            lr_scheduler={"name": "CosineWithWarmup", "warmup_steps": 3},
            num_samples=0,
        )
        saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=2, save_top_k=0)
        options = {"max_steps": STEPS, "callbacks": [saving, Die(die)], "enable_checkpointing": True, **options}
        trainer = quiet_trainer(**options)
        path = folder / "last.ckpt" if resume and (folder / "last.ckpt").exists() else None
        try:
            datamodule = tiny_data(seed=3, random_train_shift=True, **(data or {}))
            trainer.fit(module, datamodule=datamodule, ckpt_path=path, weights_only=True)
        except DeathError:
            assert trainer.global_step == die
        return trainer

    return train


def state(trainer) -> dict:
    return {
        "weights": dict(trainer.lightning_module.state_dict()),
        "optimizer": trainer.optimizers[0].state_dict(),
        "rates": trainer.lr_scheduler_configs[0].scheduler.get_last_lr(),
    }


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}], ids=["each batch", "accumulated"])
def test_a_run_goes_on_as_if_it_had_not_died(train, options):
    options = options | {"max_steps": STEPS // options.get("accumulate_grad_batches", 1)}
    alone = state(train("alone", **options))
    for step in range(2, options["max_steps"]):
        died = train(f"died {step}", die=step, **options)
        assert died.global_step == step
        resumed = train(f"died {step}", resume=True, **options)
        assert resumed.global_step == options["max_steps"]
        torch.testing.assert_close(state(resumed), alone, rtol=0, atol=0)


def test_a_run_may_die_twice(train):
    alone = state(train("alone"))
    train("died", die=4)
    train("died", die=9, resume=True)
    torch.testing.assert_close(state(train("died", resume=True)), alone, rtol=0, atol=0)


def test_worker_processes_make_no_difference(train):
    alone = state(train("alone"))
    train("died", die=6, data={"num_workers": 1})
    torch.testing.assert_close(state(train("died", resume=True)), alone, rtol=0, atol=0)


def test_another_seed_is_another_run(train):
    weights = state(train("one", max_steps=3))["weights"]
    other = state(train("other", resume=True, max_steps=3))["weights"]  # nothing to resume: a seed of its own
    assert any(not torch.equal(value, other[key]) for key, value in weights.items())
