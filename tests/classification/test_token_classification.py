"""Token classification, which decodes labelled positions only."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch.nn.functional import cross_entropy

from perceiver_plugins.classification.config import TokenClassificationDecoderConfig
from perceiver_plugins.classification.lightning import LitTokenClassifier
from perceiver_plugins.sdk.data.loading import IGNORED

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")


@pytest.fixture
def module(model_config, randomise) -> LitTokenClassifier:
    decoder = TokenClassificationDecoderConfig(num_classes=3, num_cross_attention_heads=2)
    module = LitTokenClassifier.create(model_config(decoder), label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5])
    randomise(module.model)
    return module


@pytest.fixture
def batch(sequences):
    """Batch with labels at some unpadded positions; the first example has no labels."""
    batch = sequences(7)
    labels = torch.randint(3, (7, 9)).masked_fill(torch.rand(7, 9) < 0.4, IGNORED)
    labels[0] = IGNORED
    labels[1, 0] = 2
    return {**batch, "labels": labels.masked_fill(batch["attention_mask"] == 0, IGNORED)}


def test_loss_equals_that_of_decoding_all_positions(module, batch):
    weight = torch.tensor([1.0, 2.0, 0.5])
    logits, labelled = module.model(batch), batch["labels"] != IGNORED
    assert logits.shape == (7, 9, 3)
    losses = cross_entropy(logits[labelled], batch["labels"][labelled], label_smoothing=0.1, reduction="none")
    weights = weight[batch["labels"][labelled]]
    torch.testing.assert_close(module.loss_sum(batch).mean, (weights * losses).sum() / weights.sum())
    plain = cross_entropy(logits.transpose(1, 2), batch["labels"], ignore_index=IGNORED)
    torch.testing.assert_close(module.evaluate(batch, "val").mean, plain)


def test_only_labelled_positions_are_decoded(module, batch):
    queries = []
    module.model.decoder.register_forward_pre_hook(lambda _, args: queries.append(args[0].shape[1]))
    module.loss_sum(batch)
    assert queries == [int((batch["labels"] != IGNORED).sum(dim=1).max())]
    assert queries[0] < 9


def test_loss_of_batch_without_labels_is_zero(module, batch):
    batch["labels"].fill_(IGNORED)
    assert module.loss_sum(batch).mean.item() == 0


def test_padding_does_not_affect_outputs(module, batch):
    other = {**batch, "input_ids": batch["input_ids"].where(batch["attention_mask"] == 1, 3)}
    assert not torch.equal(other["input_ids"], batch["input_ids"])
    real = batch["attention_mask"] == 1
    torch.testing.assert_close(module.model(other)[real], module.model(batch)[real])
    torch.testing.assert_close(module.loss_sum(other).mean, module.loss_sum(batch).mean)


def test_outputs_have_length_of_input(module, batch):
    length = 4
    short = {name: values[:, :length] for name, values in batch.items()}
    assert module.model(short).shape == (7, length, 3)
    assert module.loss_sum(short).count > 0


def test_metrics_count_positions(module, batch, data_module, quiet_trainer):
    labelled = batch["labels"] != IGNORED
    predicted, labels = module.model(batch)[labelled].argmax(dim=-1), batch["labels"][labelled]
    (metrics,) = quiet_trainer().validate(module, datamodule=data_module(batch, 3), verbose=False)
    assert metrics["val_accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["val_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    loss = cross_entropy(module.model(batch).detach()[labelled], labels)
    assert metrics["val_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_example_labels_are_ignored_at_padding(module, sequences):
    batch = sequences(40)
    labels = module.example_labels(batch, torch.Generator().manual_seed(1))
    assert torch.equal(labels == IGNORED, batch["attention_mask"] == 0)
    assert set(labels.unique().tolist()) == {IGNORED, 0, 1, 2}
