"""Lightning modules without the command line."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import pytest
import torch
from pytorch_lightning import Callback, seed_everything
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from perceiver_plugins.sdk.tasks import LossSum
from perceiver_plugins.sdk.tasks.batches import checked_loss
from perceiver_plugins.text import LitLanguageModel
from perceiver_registry import UserError, config_to_dict

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)


class Record(Callback):
    """Record the learning rate of each step and the loss of each batch."""

    def __init__(self):
        self.rates, self.losses = [], []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.rates.append(optimizer.param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, *_):
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


@pytest.mark.slow
def test_training_with_a_data_module(tiny_config, tiny_data, quiet_trainer):
    module = LitLanguageModel.create(tiny_config(dropout=0.0, init="local"), num_samples=0)
    trainer = quiet_trainer(max_epochs=12, callbacks=[record := Record()])
    trainer.fit(module, datamodule=tiny_data(static_masking=True))
    assert trainer.global_step == 60
    assert sum(record.losses[-5:]) < sum(record.losses[:5]) - 2
    assert trainer.callback_metrics["val_loss"] < record.losses[0]


def test_training_with_a_data_loader(tiny_config, quiet_trainer):
    ids = torch.randint(6, 262, (4, 20))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.where(ids % 3 == 0, -100)}
    examples = [{name: values[i] for name, values in batch.items()} for i in range(4)]
    module = LitLanguageModel.create(tiny_config(dropout=0.0))
    before = copy.deepcopy(module.state_dict())
    trainer = quiet_trainer(max_epochs=2, callbacks=[record := Record()])
    trainer.fit(module, DataLoader(examples, batch_size=4), DataLoader(examples, batch_size=3))
    assert len(record.losses) == 2
    assert any(not torch.equal(before[key], value) for key, value in module.state_dict().items())
    # Batches of three and of one: the mean over labels, not over batches.
    model = module.model.eval()
    logits = model(batch["input_ids"], batch["attention_mask"]).detach()
    expected = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=-100)
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(float(expected), rel=1e-5)


def fit(module, trainer, **changed):
    """Train for one step on a batch with changed entries. None: without the entry."""
    ids = torch.randint(6, 262, (4, 20))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids} | changed
    examples = [{name: values[i] for name, values in batch.items() if values is not None} for i in range(4)]
    trainer.fit(module, DataLoader(examples, batch_size=4))


def test_missing_batch_entry_is_reported(tiny_config, quiet_trainer):
    module = LitLanguageModel.create(tiny_config())
    with pytest.raises(UserError, match="a batch has input_ids, attention_mask, and not labels"):
        fit(module, quiet_trainer(max_steps=1), labels=None)


def test_wrong_number_of_channels_is_reported(tiny_config, quiet_trainer):
    module = LitLanguageModel.create(tiny_config())
    adapter = module.model.input_adapter
    channels, adapter.num_input_channels = adapter.num_input_channels, 7
    with pytest.raises(UserError, match=f"x has {channels} channels, num_input_channels says 7"):
        fit(module, quiet_trainer(max_steps=1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda loss: loss.mean, "the loss is Tensor, not a LossSum of two tensors"),
        (lambda loss: LossSum(loss.total, 80), "the loss is LossSum, not a LossSum of two tensors"),
        (
            lambda loss: LossSum(loss.total.expand(4), loss.count),
            r"tensors of shape \(4,\) and \(\), not of two numbers",
        ),
    ],
)
def test_loss_of_a_wrong_type_is_reported(tiny_config, quiet_trainer, wrong, message):
    class Wrong(LitLanguageModel):
        def loss_sum(self, batch):
            return wrong(super().loss_sum(batch))

    with pytest.raises(UserError, match=message):
        fit(Wrong.create(tiny_config()), quiet_trainer(max_steps=1))


def test_only_first_batch_is_checked(tiny_config, tiny_data, quiet_trainer):
    class Hooks(Callback):
        counts: ClassVar[list[int]] = []

        def on_train_batch_end(self, trainer, module, *_):
            self.counts.append(len(module.model.input_adapter._forward_hooks))

    calls = []
    module = LitLanguageModel.create(tiny_config(), num_samples=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "perceiver_plugins.sdk.tasks.lightning.checked_loss", lambda *args: calls.append(1) or checked_loss(*args)
        )
        quiet_trainer(max_steps=3, limit_val_batches=0, callbacks=[Hooks()]).fit(module, datamodule=tiny_data())
    assert (calls, Hooks.counts) == ([1], [0, 0, 0])


def test_loss_of_a_batch_without_labels_is_zero(tiny_config):
    module = LitLanguageModel.create(tiny_config())
    ids = torch.randint(6, 262, (2, 9))
    loss = module.loss_sum({"input_ids": ids, "attention_mask": ids > 0, "labels": torch.full_like(ids, -100)})
    assert loss.mean.item() == 0


def test_load_from_own_checkpoint(tiny_config, tiny_data, quiet_trainer, tmp_path):
    optimizer = {"name": "SGD", "lr": 0.3}
    module = LitLanguageModel.create(tiny_config(), optimizer=optimizer)
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(module, datamodule=tiny_data())
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    loaded = LitLanguageModel.load_from_checkpoint(tmp_path / "m.ckpt", weights_only=True)
    assert config_to_dict(loaded.config) == config_to_dict(module.config)
    assert loaded.optimizer_config == optimizer
    for key, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    # Only weights, for another model of the same sizes.
    other = LitLanguageModel.create(tiny_config(params=str(tmp_path / "m.ckpt")))
    assert torch.equal(other.model.encoder.latents, module.model.encoder.latents)


def expected_cosine(steps: int, warmup: int, lr: float) -> list[float]:
    def factor(step: int) -> float:
        if step < warmup:
            return step / warmup
        return (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

    return [lr * factor(step) for step in range(steps)]


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"max_epochs": 3}, 15),
        ({"max_steps": 7}, 7),
        ({"max_epochs": 2, "accumulate_grad_batches": 2}, 6),
        ({"max_epochs": 2, "limit_train_batches": 3}, 6),
    ],
)
def test_cosine_schedule_ends_with_the_run(tiny_config, tiny_data, quiet_trainer, options, steps):
    schedule = {"name": "CosineWithWarmup", "warmup_steps": 2}
    optimizer = {"name": "AdamW", "lr": 0.5}
    module = LitLanguageModel.create(tiny_config(), optimizer=optimizer, lr_scheduler=schedule)
    trainer = quiet_trainer(callbacks=[record := Record()], limit_val_batches=0, **options)
    trainer.fit(module, datamodule=tiny_data())
    assert trainer.global_step == steps
    assert record.rates == pytest.approx(expected_cosine(steps, 2, 0.5))


def test_schedule_of_unknown_length_is_reported(tiny_config, tiny_data, quiet_trainer):
    module = LitLanguageModel.create(tiny_config(), lr_scheduler={"name": "CosineWithWarmup"})
    with pytest.raises(UserError, match=r"^--trainer\.max_steps: required by the learning rate schedule"):
        quiet_trainer(max_epochs=-1).fit(module, datamodule=tiny_data())


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_any_precision(tiny_config, tiny_data, quiet_trainer, precision, clip):
    norms = []

    class Norm(Callback):
        def on_before_zero_grad(self, trainer, module, optimizer):
            grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
            if grads:
                norms.append(float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads]))))

    module = LitLanguageModel.create(tiny_config())
    trainer = quiet_trainer(max_steps=2, precision=precision, gradient_clip_val=clip, callbacks=[Norm()])
    trainer.fit(module, datamodule=tiny_data())
    assert trainer.optimizers[0].defaults["fused"] is True
    assert norms
    if clip:
        assert max(norms) <= clip * 1.001


def test_unfit_data_is_reported(tiny_config, tiny_data, quiet_trainer):
    module = LitLanguageModel.create(tiny_config())
    with pytest.raises(UserError, match="max_seq_len=40 does not fit the model's max_seq_len=32"):
        quiet_trainer(max_steps=1).fit(module, datamodule=tiny_data(max_seq_len=40))


def test_fully_frozen_model_is_reported(tiny_config, tiny_data, quiet_trainer):
    config = tiny_config()
    config.encoder.freeze = config.decoder.freeze = True
    with pytest.raises(UserError, match="both frozen"):
        quiet_trainer(max_steps=1).fit(LitLanguageModel.create(config), datamodule=tiny_data())


def test_dropout_depends_only_on_the_seed(tiny_config, tiny_data, quiet_trainer):
    def train(seed: int, disturbance: int) -> list[float]:
        torch.manual_seed(7)
        module = LitLanguageModel.create(tiny_config(dropout=0.4))
        seed_everything(seed, verbose=False)
        data = tiny_data(seed=1)
        trainer = quiet_trainer(max_steps=3, callbacks=[record := Record()], limit_val_batches=disturbance)
        trainer.fit(module, datamodule=data)
        return record.losses

    assert train(1, 0) == train(1, 1)
    assert train(1, 0) != train(2, 0)
