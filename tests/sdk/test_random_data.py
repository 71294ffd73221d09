"""Random data for any model: whoever trains at all learns the training examples by heart."""

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

VOCAB_SIZE, MAX_SEQ_LEN = 12, 8

DECODERS = {
    "classification": ClassificationDecoderConfig(2, num_classes=3, num_output_query_channels=32),
    "token-classification": TokenClassificationDecoderConfig(2, num_classes=3),
    "regression": RegressionDecoderConfig(2, num_targets=2, num_output_query_channels=32),
    "mlm": TextDecoderConfig(2, vocab_size=VOCAB_SIZE, max_seq_len=MAX_SEQ_LEN, num_output_query_channels=32),
}

LEARNT = {"classification": 0.2, "token-classification": 0.5, "regression": 0.2, "mlm": 0.6}
"""Parts of the first loss that may be left at the end."""

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)


@pytest.fixture
def module():
    """A function that makes a small module of a task that reads tokens."""

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
    """Keeps the loss of each step."""

    def __init__(self):
        self.train: list[float] = []

    def on_train_batch_end(self, trainer, *_):
        self.train.append(float(trainer.callback_metrics["train_loss"]))


def loss_of(module, batch) -> float:
    with torch.no_grad():
        return float(module.loss_sum(batch).mean)


@pytest.mark.parametrize("task", DECODERS)
def test_a_model_learns_the_training_examples_by_heart(module, quiet_trainer, task):
    lit_module, data = module(task), RandomDataModule(num_examples=16, batch_size=16, seed=1)
    trainer = quiet_trainer(max_steps=120, num_sanity_val_steps=0, limit_val_batches=0)
    data.trainer = trainer
    trainer.fit(lit_module, datamodule=data)
    examples = default_collate([data.examples("train")[i] for i in range(16)])
    fresh = module(task)
    assert loss_of(lit_module, examples) < LEARNT[task] * loss_of(fresh, examples)
    unseen = default_collate([data.examples("validation")[i] for i in range(16)])
    assert loss_of(lit_module, unseen) > loss_of(lit_module, examples)


def examples_of(spec) -> dict:
    """The values of a spec's small model that belong to its part of it, and its adapter."""
    return {"adapter": spec.name} | {key.split(".", 2)[2]: value for key, value in spec.example.items()}


def fitting_pairs() -> list[tuple[str, str, str]]:
    """All registered inputs with all registered outputs that fit them, and the first task of the output."""
    pairs = []
    for output in registry().entries("output"):
        task = registry().get("task", output.spec.tasks[0])
        inputs = [entry for entry in registry().entries("input") if set(task.spec.reads) <= set(entry.spec.reads)]
        pairs += [(entry.name, output.name, task.name) for entry in inputs]
    return pairs


@pytest.mark.parametrize(("encoder", "decoder", "task"), fitting_pairs())
def test_any_input_trains_with_any_output_that_fits_it(quiet_trainer, encoder, decoder, task):
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


def test_several_output_queries_have_a_label_each(module, quiet_trainer):
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


def test_examples_depend_on_the_seed_and_the_split_alone(module, quiet_trainer):
    one, again, other = (splits(module("classification"), quiet_trainer, seed) for seed in (1, 1, 2))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    inputs = [each[split]["input_ids"] for each in (one, other) for split in each]
    for i, left in enumerate(inputs):
        for right in inputs[:i]:
            assert not torch.equal(left, right)


def test_labels_lie_within_the_task(module, quiet_trainer):
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
    assert rows[(8, 2)]["labels"] == 7  # the epoch makes no difference
    assert rows[3]["labels"] == rows[0]["labels"]  # beyond the end
    torch.testing.assert_close(default_collate([rows[i] for i in range(3)]), batch)


def test_it_serves_all_tasks():
    spec = registry().get("data", "random").spec
    assert all(spec.serves(entry.name) for entry in registry().entries("task"))
    assert registry().get("data", "random").resolve("module") is RandomDataModule


def test_it_needs_a_trainer():
    with pytest.raises(UserError, match="can only be used with a trainer"):
        RandomDataModule().setup()


def test_an_adapter_without_examples_is_refused(module, quiet_trainer, monkeypatch):
    lit_module = module("classification")
    monkeypatch.delattr(type(lit_module.model.input_adapter), "example_batch")
    with pytest.raises(
        UserError, match=r"^TextInputAdapter.example_batch is not implemented, which random data needs$"
    ):
        quiet_trainer(max_steps=1).fit(lit_module, datamodule=RandomDataModule())


@pytest.mark.parametrize("name", ["num_examples", "batch_size"])
def test_sizes_must_be_positive(name):
    with pytest.raises(UserError, match=f"{name}=0 must be at least 1"):
        RandomDataModule(**{name: 0})
