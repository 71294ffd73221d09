"""Optimizer steps in the backward pass: equal training with less memory, or an error message."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.callbacks import GradientAccumulationScheduler, LambdaCallback, ModelCheckpoint
from torch import nn

from perceiver_plugins.sdk.tasks.callbacks import OptimizerInBackward
from perceiver_plugins.sdk.tasks.in_backward import MIN_SIZE, stepping_in_backward
from perceiver_plugins.sdk.tasks.optimizers import create_optimizer
from perceiver_plugins.text import LanguageModel, LitLanguageModel
from perceiver_registry import UserError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*not resumable.*",
    "ignore:.*many workers.*",
    "ignore:.*exists and is.*",
    "ignore:.*LeafSpec.*",
    "ignore:.*dirpath has changed.*",
)

STEPS = 7  # an epoch and two steps


def assert_same(one, other) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


# Plain PyTorch


@pytest.fixture
def model(text_config):
    """Small language model with shared layers and tied embeddings."""
    repeated = {"num_self_attention_blocks": 3, "num_cross_attention_layers": 2}
    return LanguageModel(text_config(repeated))


def loss_of(model, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    tokens, labels = torch.randint(37, (2, 3, 23), generator=generator)
    return nn.functional.cross_entropy(model(tokens, torch.zeros_like(tokens)).flatten(0, 1), labels.flatten())


def groups_of(model) -> list[dict]:
    """Weight decay of matrices only, and a lower learning rate of vectors."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    return [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0, "lr": 1e-3}]


def train(model, optimizer, schedule) -> None:
    for step in range(5):
        loss_of(model, seed=step).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


@pytest.mark.slow
@pytest.mark.parametrize("min_size", [0, 200])
@pytest.mark.parametrize(
    "config",
    [
        {"name": "AdamW", "lr": 0.01},
        {"name": "AdamW", "lr": 0.01, "amsgrad": True, "foreach": True},
        {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        {"name": "NAdam", "lr": 0.01},
        {"name": "Adafactor", "lr": 0.01},
        {"name": "RMSprop", "lr": 0.01},
    ],
    ids=lambda config: config["name"],
)
def test_weights_and_state_equal_those_of_ordinary_steps(model, config, min_size):
    other = copy.deepcopy(model)
    optimizers = [create_optimizer(config, groups_of(each)) for each in (model, other)]
    schedules = [torch.optim.lr_scheduler.StepLR(each, 2, gamma=0.3) for each in optimizers]
    train(model, optimizers[0], schedules[0])
    with stepping_in_backward(optimizers[1], min_size):
        train(other, optimizers[1], schedules[1])
    assert_same(other.state_dict(), model.state_dict())
    assert_same(optimizers[1].state_dict(), optimizers[0].state_dict())


def test_only_large_gradients_are_freed_in_backward(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model.state_dict())
    with stepping_in_backward(optimizer, min_size=100):
        loss_of(model, seed=1).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (parameter.numel() >= 100), name
        assert parameter.equal(before[name]) == (parameter.numel() < 100), name
    model.zero_grad()
    loss_of(model, seed=1).backward()
    assert not any(parameter.grad is None for parameter in model.parameters()), "the context is over"


def test_frozen_weights_do_not_change(model):
    model.requires_grad_(False)
    model.decoder.requires_grad_(True)
    before = copy.deepcopy(model.encoder.state_dict())
    with stepping_in_backward(torch.optim.SGD(model.parameters(), lr=0.1), min_size=0):
        loss_of(model, seed=1).backward()
    assert_same(model.encoder.state_dict(), before)


@pytest.mark.parametrize("name", ["LBFGS", "Lamb"])
def test_optimizers_that_need_all_gradients_are_rejected(model, name):
    optimizer = create_optimizer({"name": name, "lr": 0.1}, model.parameters())
    with pytest.raises(UserError, match=f"--optimizer.in_backward=true: .* --optimizer={name}"):
        stepping_in_backward(optimizer).__enter__()


# In Lightning


@pytest.fixture
def fit(tiny_config, tiny_data, quiet_trainer, tmp_path):
    """Function that trains, optionally in the backward pass or from a checkpoint; returns the last checkpoint."""

    def fit(name: str, in_backward: bool, steps: int = STEPS, resume: str | None = None, model=None, **options) -> dict:
        seed_everything(3, verbose=False)
        module = LitLanguageModel.create(
            tiny_config(dropout=0.2, **(model or {})),
            optimizer={"name": "AdamW", "lr": 0.02, "weight_decay": 0.1},
            lr_scheduler={"name": "CosineWithWarmup", "warmup_steps": 3, "training_steps": STEPS},
            num_samples=0,
            ema_decay=0.8,
        )
        saving = ModelCheckpoint(tmp_path / name, save_last=True, every_n_train_steps=1, save_top_k=0)
        callbacks = [saving, *([OptimizerInBackward(min_size=0)] if in_backward else [])]
        trainer = quiet_trainer(max_steps=steps, callbacks=callbacks, enable_checkpointing=True, **options)
        source = None if resume is None else tmp_path / resume / "last.ckpt"
        trainer.fit(module, datamodule=tiny_data(seed=3), ckpt_path=source, weights_only=True)
        assert trainer.global_step == steps
        return torch.load(tmp_path / name / "last.ckpt", weights_only=True)

    return fit


PARTS = ("state_dict", "current_model_state", "averaging_state", "optimizer_states", "lr_schedulers", "global_step")


def assert_same_run(one: dict, other: dict) -> None:
    for part in PARTS:
        assert_same(one[part], other[part])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options"),
    [({}, {}), ({"activation_checkpointing": True}, {"precision": "bf16-mixed"})],
    ids=["plain", "checkpointing and mixed precision"],
)
def test_run_equals_an_ordinary_one_and_is_resumed_with_or_without(fit, model, options):
    ordinary = fit("ordinary", False, model=model, **options)
    assert_same_run(fit("in backward", True, model=model, **options), ordinary)
    for first, then in ((False, True), (True, False)):
        fit("half", first, steps=4, model=model, **options)
        assert_same_run(fit("whole", then, resume="half", model=model, **options), ordinary)


class Gradients(Callback):
    """Keeps which of a module's weights have a gradient when a batch is over, and whether hooks are left."""

    def on_train_batch_end(self, trainer, module, *_):
        self.left = {parameter.numel() for parameter in module.parameters() if parameter.grad is not None}

    def on_fit_end(self, trainer, module):
        self.hooks = sum(len(parameter._post_accumulate_grad_hooks or ()) for parameter in module.parameters())


@pytest.mark.parametrize("value", [True, False])
def test_in_backward_option_enables_it(tiny_config, tiny_data, quiet_trainer, value):
    config = tiny_config(num_latents=120, num_latent_channels=150)  # 18000 elements
    options = {"name": "AdamW", "lr": 0.02, "in_backward": value}
    module = LitLanguageModel.create(config, optimizer=options, num_samples=0)
    gradients = Gradients()
    trainer = quiet_trainer(max_steps=2, callbacks=[gradients])
    trainer.fit(module, datamodule=tiny_data())
    assert (max(gradients.left) < MIN_SIZE) == value
    assert gradients.hooks == 0
    assert "in_backward" not in trainer.optimizers[0].state_dict()["param_groups"][0]


def test_other_in_backward_value_on_resume_keeps_the_optimizer_state(tiny_config, tiny_data, quiet_trainer, tmp_path):
    def train(steps: int, path=None, **option) -> dict:
        optimizer = {"name": "AdamW", "lr": 0.02, **option}
        module = LitLanguageModel.create(tiny_config(), optimizer=optimizer, num_samples=0)
        trainer = quiet_trainer(max_steps=steps)
        trainer.fit(module, datamodule=tiny_data(seed=3), ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        return trainer.optimizers[0].state_dict()["param_groups"][0]

    groups = train(2)
    assert train(4, tmp_path / "run.ckpt", in_backward=True) == groups
    assert train(6, tmp_path / "run.ckpt", in_backward=False) == groups


class LogsNorms(Callback):
    def on_before_optimizer_step(self, trainer, module, optimizer):
        pass


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gradient_clip_val": 1.0}, "--trainer.gradient_clip_val=1.0 (set it to null)"),
        ({"accumulate_grad_batches": 2}, "--trainer.accumulate_grad_batches=2 (set it to 1)"),
        ({"callbacks": [GradientAccumulationScheduler({0: 1, 1: 2})]}, "GradientAccumulationScheduler (leave it out)"),
        ({"callbacks": [LogsNorms()]}, "LogsNorms.on_before_optimizer_step, which would find no gradients"),
        ({"callbacks": [LambdaCallback(on_after_backward=lambda *_: None)]}, "LambdaCallback.on_after_backward"),
    ],
    ids=["clipping", "accumulation", "scheduled accumulation", "norms", "after the backward pass"],
)
def test_options_that_need_all_gradients_are_rejected(tiny_config, tiny_data, quiet_trainer, options, named):
    module = LitLanguageModel.create(tiny_config(), optimizer={"name": "AdamW", "lr": 0.1, "in_backward": True})
    trainer = quiet_trainer(max_steps=2, **options)
    with pytest.raises(
        UserError, match=rf"^--optimizer\.in_backward=true: cannot be combined with .*{re.escape(named)}[^\n]*$"
    ):
        trainer.fit(module, datamodule=tiny_data())
    assert trainer.global_step == 0


def test_gradient_scaler_is_rejected(quiet_trainer):
    trainer = quiet_trainer()
    trainer.strategy.precision_plugin.precision = "16-mixed"  # this precision needs a GPU
    with pytest.raises(UserError, match=r"--trainer.precision=16-mixed, which scales gradients \(choose bf16-mixed or"):
        OptimizerInBackward().setup(trainer, trainer.lightning_module, "fit")


def test_several_devices_are_rejected(quiet_trainer):
    trainer = quiet_trainer(strategy="ddp")
    with pytest.raises(UserError, match=r"--trainer.strategy=DDPStrategy \(train on one device"):
        OptimizerInBackward().setup(trainer, trainer.lightning_module, "fit")


def test_clipping_value_of_null_is_accepted(tiny_config, tiny_data, quiet_trainer):
    module = LitLanguageModel.create(tiny_config(), optimizer={"name": "AdamW", "lr": 0.1, "in_backward": True})
    quiet_trainer(max_steps=1, gradient_clip_val=0).fit(module, datamodule=tiny_data())
