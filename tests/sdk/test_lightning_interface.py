"""Prediction, learning rate finder and batch size finder of Lightning."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.tuner import Tuner

from perceiver_core import PerceiverConfig
from perceiver_plugins.text import LitLanguageModel
from perceiver_registry import create_module, registry
from perceiver_registry.testing.subjects import AdapterSubject

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")

TASKS = {
    "mlm": ("text", "text"),
    "classification": ("image-pixels", "classification"),
    "token-classification": ("text", "token-classification"),
    "regression": ("table", "regression"),
    "optical-flow": ("flow-patches", "optical-flow"),
    "multimodal-autoencoding": ("audio-video-label", "audio-video-label"),
}


@pytest.mark.parametrize("task", TASKS)
def test_predict_step_returns_the_models_output(task):
    encoder, decoder = (
        AdapterSubject(registry().get(kind, name).spec, {}).config()
        for kind, name in zip(("input", "output"), TASKS[task], strict=True)
    )
    module = create_module(task, PerceiverConfig(encoder, decoder, 4, 16)).eval()
    batch = dict(module.model.input_adapter.example_batch(2, torch.Generator().manual_seed(0)))
    expected = module.model(**batch) if task == "mlm" else module.model(batch)
    torch.testing.assert_close(module(batch), expected)
    torch.testing.assert_close(module.predict_step(batch | {"labels": None}, 0), expected)


def test_trainer_predicts(tiny_config, tiny_data, quiet_trainer, tmp_path):
    module = LitLanguageModel.create(tiny_config())
    data = tiny_data(test_files=str(tmp_path / "train.txt"), train_files=str(tmp_path / "val.txt"), val_files=None)
    outputs = quiet_trainer().predict(module, datamodule=data)
    assert [tuple(output.shape) for output in outputs] == [(2, 32, 262)] * 5


@pytest.fixture
def lit(tiny_config):
    """Function that creates a module with a learning rate of 0.5, which is too high, and a schedule."""

    def lit(**schedule):
        return LitLanguageModel.create(
            tiny_config(), optimizer={"name": "SGD", "lr": 0.5}, lr_scheduler=schedule or None, num_samples=0
        )

    return lit


def test_lr_attribute(lit, tiny_config):
    module = lit()
    assert module.lr == 0.5
    module.lr = 0.25
    assert module.optimizer_config == module.hparams["optimizer"] == {"name": "SGD", "lr": 0.25}
    assert LitLanguageModel.create(tiny_config(), optimizer={"name": "AdamW"}).lr == 1e-3


@pytest.mark.slow
def test_training_uses_the_learning_rate_found_by_a_tuner(lit, tiny_data, quiet_trainer):
    module, data = lit(), tiny_data()
    finder = Tuner(quiet_trainer(max_steps=5)).lr_find(module, datamodule=data, num_training=30)
    assert module.lr == finder.suggestion() != 0.5
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(module, datamodule=data)
    assert trainer.optimizers[0].param_groups[0]["lr"] == module.lr


@pytest.mark.parametrize(
    ("schedule", "first"), [({}, 1.0), ({"name": "ConstantWithWarmup", "warmup_steps": 2}, 0.0)], ids=["none", "warmup"]
)
def test_schedule_uses_a_rate_set_at_the_start_of_a_run(lit, tiny_data, quiet_trainer, schedule, first):
    class Find(Callback):
        """Set the rate as LearningRateFinder does, and record the rates of the steps."""

        def __init__(self):
            self.rates = []

        def on_fit_start(self, trainer, pl_module):
            pl_module.lr = 0.125
            trainer.optimizers[0].param_groups[0]["lr"] = 0.125

        def on_before_optimizer_step(self, trainer, module, optimizer):
            self.rates.append(optimizer.param_groups[0]["lr"])

    find = Find()
    quiet_trainer(max_steps=4, callbacks=[find]).fit(lit(**schedule), datamodule=tiny_data())
    assert find.rates == [0.125 * factor for factor in ([first, 0.5, 1, 1] if schedule else [1, 1, 1, 1])]


@pytest.mark.slow
def test_tuner_finds_a_batch_size(lit, tiny_data, quiet_trainer):
    module, data = lit(), tiny_data()
    found = Tuner(quiet_trainer(max_steps=5)).scale_batch_size(module, datamodule=data, max_trials=2)
    assert data.batch_size == found == 4
    trainer = quiet_trainer(max_steps=1)
    trainer.fit(module, datamodule=data)
    assert trainer.train_dataloader.batch_size == 4
