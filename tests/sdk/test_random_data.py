"""Random data for any model: a model that trains overfits the training examples."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Callback
from torch.utils.data import default_collate

from perceiver_core import PerceiverConfig
from perceiver_plugins.checkpoints.random_data import RandomDataModule, Rows, num_examples
from perceiver_plugins.classification.config import (
    ClassificationDecoderConfig,
    RegressionDecoderConfig,
    TokenClassificationDecoderConfig,
)
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import UserError, create_module, registry
from perceiver_registry.specs import DEFAULT_ARCHITECTURE

VOCAB_SIZE, MAX_SEQ_LEN = 12, 8

DECODERS = {
    "classification": ClassificationDecoderConfig(2, num_classes=3, num_output_query_channels=32),
    "token-classification": TokenClassificationDecoderConfig(2, num_classes=3),
    "regression": RegressionDecoderConfig(2, num_targets=2, num_output_query_channels=32),
    "mlm": TextDecoderConfig(2, vocab_size=VOCAB_SIZE, max_seq_len=MAX_SEQ_LEN, num_output_query_channels=32),
}

MAX_LOSS = {"classification": 0.2, "token-classification": 0.5, "regression": 0.2, "mlm": 0.6}
"""Largest loss after training, relative to that of an untrained model."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)


@pytest.fixture
def module():
    """Factory of small modules of tasks on tokens."""

    def module(task: str, decoder=None, lr: float = 3e-3, **options):
        encoder = TextEncoderConfig(
            num_cross_attention_heads=2,
            num_self_attention_heads=2,
            num_self_attention_layers_per_block=1,
            vocab_size=VOCAB_SIZE,
            max_seq_len=MAX_SEQ_LEN,
            num_input_channels=32,
            init_scale=0.1,
        )
        config = PerceiverConfig(encoder, decoder or DECODERS[task], num_latents=8, num_latent_channels=32)
        if task == "mlm":
            options["num_samples"] = 0
        return create_module(task, config, optimizer={"name": "AdamW", "lr": lr}, **options)

    return module


class Losses(Callback):
    """Callback that records the loss of each step."""

    def __init__(self):
        self.train: list[float] = []

    def on_train_batch_end(self, trainer, *_):
        self.train.append(float(trainer.callback_metrics["train_loss"]))


def loss_of(module, batch) -> float:
    with torch.no_grad():
        return float(module.loss_sum(batch).mean)


@pytest.mark.slow
@pytest.mark.parametrize("task", DECODERS)
def test_model_overfits_the_training_examples(module, quiet_trainer, task):
    lit_module, data = module(task), RandomDataModule(num_examples=16, batch_size=16, seed=1)
    trainer = quiet_trainer(max_steps=120, num_sanity_val_steps=0, limit_val_batches=0)
    data.trainer = trainer
    trainer.fit(lit_module, datamodule=data)
    examples = default_collate([data.examples("train")[i] for i in range(16)])
    fresh = module(task)
    assert loss_of(lit_module, examples) < MAX_LOSS[task] * loss_of(fresh, examples)
    unseen = default_collate([data.examples("validation")[i] for i in range(16)])
    assert loss_of(lit_module, unseen) > loss_of(lit_module, examples)


def examples_of(spec) -> dict:
    """Return the adapter of a spec, and the options of its small example."""
    return {"adapter": spec.name} | {key.split(".", 2)[2]: value for key, value in spec.example.items()}


def fitting_pairs() -> list[tuple[str, str, str]]:
    """Pair registered inputs and outputs so that each occurs at least once, with the first task of the output.

    Adapters that tasks with another architecture have by default are made for it, and left out.
    """
    others = [task.spec for task in registry().entries("task") if task.spec.architecture != DEFAULT_ARCHITECTURE]
    encoders = [
        entry
        for entry in registry().entries("input")
        if entry.name not in {t.defaults["model.encoder"] for t in others}
    ]
    fitting = {}
    for output in registry().entries("output"):
        task = registry().get("task", output.spec.tasks[0])
        if task.spec not in others and task.spec.data is not None:
            inputs = [entry.name for entry in encoders if set(task.spec.reads) <= set(entry.spec.reads)]
            fitting[output.name, task.name] = inputs
    pairs = [(inputs[index % len(inputs)], *key) for index, (key, inputs) in enumerate(fitting.items())]
    for index, name in enumerate(entry.name for entry in encoders):
        keys = [key for key, inputs in fitting.items() if name in inputs]
        if name not in {pair[0] for pair in pairs}:
            pairs.append((name, *keys[index % len(keys)]))
    return pairs


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "decoder", "task"), fitting_pairs())
def test_inputs_train_with_fitting_outputs(quiet_trainer, encoder, decoder, task):
    plain = {
        "encoder": {
            "num_cross_attention_heads": 1,
            "num_self_attention_heads": 2,
            "num_self_attention_layers_per_block": 1,
            "init_scale": 0.1,
            **examples_of(registry().get("input", encoder).spec),
        },
        "decoder": {
            "num_cross_attention_heads": 1,
            "init_scale": 0.1,
            **examples_of(registry().get("output", decoder).spec),
        },
        "num_latents": 4,
        "num_latent_channels": 16,
    }
    lit_module = create_module(task, plain, optimizer={"name": "AdamW", "lr": 5e-3})
    data = RandomDataModule(num_examples=4, batch_size=4, seed=1)
    trainer = quiet_trainer(max_steps=40, num_sanity_val_steps=0, limit_val_batches=0, callbacks=[losses := Losses()])
    trainer.fit(lit_module, datamodule=data)
    assert min(losses.train) < 0.95 * losses.train[0]


@pytest.mark.parametrize("task", DECODERS)
def test_all_splits_can_be_evaluated(module, quiet_trainer, task):
    trainer = quiet_trainer()
    data = RandomDataModule(num_examples=7, batch_size=3)
    (validated,) = trainer.validate(module(task), datamodule=data, verbose=False)
    (tested,) = trainer.test(module(task), datamodule=data, verbose=False)
    assert validated["val_loss"] > 0
    assert tested["test_loss"] > 0


def test_each_output_query_has_a_label(module, quiet_trainer):
    decoder = ClassificationDecoderConfig(2, num_classes=3, num_output_queries=4, num_output_query_channels=32)
    data = RandomDataModule(num_examples=5)
    (metrics,) = quiet_trainer().validate(module("classification", decoder), datamodule=data, verbose=False)
    assert data.examples("validation")[0]["labels"].shape == (4,)
    assert metrics["val_loss"] > 0


def splits(module, quiet_trainer, seed: int) -> dict[str, dict]:
    data = RandomDataModule(num_examples=6, seed=seed)
    data.trainer = trainer = quiet_trainer()
    trainer.strategy.connect(module)
    data.setup("fit")
    return {split: data.examples(split).examples for split in ("train", "validation", "test")}


def test_examples_are_a_function_of_seed_and_split(module, quiet_trainer):
    one, again, other = (splits(module("classification"), quiet_trainer, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    inputs = [each[split]["input_ids"] for each in (one, other) for split in each]
    for i, left in enumerate(inputs):
        for right in inputs[:i]:
            assert not torch.equal(left, right)


def test_labels_are_valid_for_the_task(module, quiet_trainer):
    sizes = {task: splits(module(task), quiet_trainer, 3)["train"] for task in DECODERS}
    assert set(sizes["classification"]["labels"].tolist()) == {0, 1, 2}
    assert sizes["regression"]["labels"].shape == (6, 2)
    real = sizes["token-classification"]["attention_mask"] == 1
    assert torch.equal(sizes["token-classification"]["labels"] != IGNORED, real)
    mlm = sizes["mlm"]
    masked = mlm["labels"] != IGNORED
    assert masked.any()
    assert not (masked & (mlm["attention_mask"] == 0)).any()
    assert torch.equal(mlm["labels"][masked], mlm["input_ids"][masked])


def test_rows_of_nested_batches():
    batch = {"a": {"x": torch.arange(6).view(3, 2), "y": torch.arange(3)}, "labels": torch.tensor([5, 6, 7])}
    rows = Rows(batch)
    assert len(rows) == num_examples(batch) == 3
    assert num_examples({"x": torch.zeros(4, 2)}) == 4
    row = rows[1]
    assert row["a"]["x"].tolist() == [2, 3]
    assert (row["a"]["y"], row["labels"]) == (1, 6)
    assert rows[(8, 2)]["labels"] == 7  # independent of the epoch
    assert rows[3]["labels"] == rows[0]["labels"]  # beyond the end
    torch.testing.assert_close(default_collate([rows[i] for i in range(3)]), batch)


def test_random_data_serves_all_tasks():
    spec = registry().get("data", "random").spec
    assert all(spec.serves(entry.name) for entry in registry().entries("task"))
    assert registry().get("data", "random").resolve("module") is RandomDataModule


def test_random_data_needs_a_trainer():
    with pytest.raises(UserError, match="can only be used with a trainer"):
        RandomDataModule().setup()


def test_adapter_without_example_batch_is_rejected(module, quiet_trainer, monkeypatch):
    lit_module = module("classification")
    monkeypatch.delattr(type(lit_module.model.input_adapter), "example_batch")
    with pytest.raises(
        UserError, match=r"^TextInputAdapter.example_batch is not implemented \(required for random data\)$"
    ):
        quiet_trainer(max_steps=1).fit(lit_module, datamodule=RandomDataModule())


@pytest.mark.parametrize("name", ["num_examples", "batch_size"])
def test_sizes_must_be_positive(name):
    with pytest.raises(UserError, match=f"{name}=0 must be at least 1"):
        RandomDataModule(**{name: 0})
