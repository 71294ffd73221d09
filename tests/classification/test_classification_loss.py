"""Loss of classifiers against the definitions of torch and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_registry import UserError

WEIGHTS = [2.0, 0.25, 1.0, 3.0]

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)


@pytest.fixture
def batch(sequences):
    return {**sequences(9), "labels": torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3])}


@pytest.mark.parametrize("num_ignored", [0, 3])
@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.2, None), (0.0, WEIGHTS)])
def test_loss_equals_torch_cross_entropy(classifier, batch, smoothing, weights, num_ignored):
    module = classifier(label_smoothing=smoothing, class_weights=weights)
    batch["labels"][2 : 2 + num_ignored] = IGNORED
    weight = None if weights is None else torch.tensor(weights)
    expected = cross_entropy(
        module.model(batch), batch["labels"], weight, ignore_index=IGNORED, label_smoothing=smoothing
    )
    torch.testing.assert_close(module.loss_sum(batch).mean, expected)


def test_class_weights_apply_per_example_with_label_smoothing(classifier, batch):
    module = classifier(label_smoothing=0.2, class_weights=WEIGHTS)
    weights = torch.tensor(WEIGHTS)[batch["labels"]]
    losses = cross_entropy(module.model(batch), batch["labels"], label_smoothing=0.2, reduction="none")
    torch.testing.assert_close(module.loss_sum(batch).mean, (weights * losses).sum() / weights.sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_of_mixed_labels(classifier, batch, smoothing):
    module = classifier(label_smoothing=smoothing)
    batch["labels"] = torch.rand(9, 4).softmax(dim=-1)
    expected = cross_entropy(module.model(batch), batch["labels"], label_smoothing=smoothing)
    torch.testing.assert_close(module.loss_sum(batch).mean, expected)


def test_mixed_label_has_mean_weight_of_its_classes(classifier, batch):
    module = classifier(class_weights=WEIGHTS)
    batch["labels"] = torch.rand(9, 4).softmax(dim=-1)
    losses = cross_entropy(module.model(batch), batch["labels"], reduction="none")
    weights = torch.tensor([sum(p * w for p, w in zip(row, WEIGHTS, strict=True)) for row in batch["labels"].tolist()])
    torch.testing.assert_close(module.loss_sum(batch).mean, (weights * losses).sum() / weights.sum())


def test_one_hot_labels_equal_class_indices(classifier, batch):
    module = classifier(label_smoothing=0.1, class_weights=WEIGHTS)
    mixed = {**batch, "labels": torch.eye(4)[batch["labels"]]}
    torch.testing.assert_close(module.loss_sum(mixed).mean, module.loss_sum(batch).mean)


def test_loss_covers_all_output_queries(classifier, batch):
    module = classifier(decoder={"num_output_queries": 3}, label_smoothing=0.1)
    batch["labels"] = torch.randint(4, (9, 3))
    batch["labels"][1, 2] = batch["labels"][4, 0] = IGNORED
    logits = module.model(batch)
    assert logits.shape == (9, 3, 4)
    loss = module.loss_sum(batch)
    expected = cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), ignore_index=IGNORED, label_smoothing=0.1)
    torch.testing.assert_close(loss.mean, expected)
    assert loss.count == 25


@pytest.mark.parametrize(("num_queries", "shape"), [(3, (9,)), (3, (9, 2)), (1, (9, 1))])
def test_labels_of_wrong_shape_are_refused(classifier, batch, num_queries, shape):
    module = classifier(decoder={"num_output_queries": num_queries})
    batch["labels"] = torch.zeros(shape, dtype=torch.long)
    with pytest.raises(UserError, match=r"labels: must have shape .*, got .*num_output_queries"):
        module.loss_sum(batch)


def test_loss_of_batch_without_labels_is_zero(classifier, batch):
    module = classifier()
    batch["labels"].fill_(IGNORED)
    assert module.loss_sum(batch).mean.item() == 0
    assert module.evaluate(batch, "val").mean.item() == 0


def test_evaluation_ignores_smoothing_and_weights(classifier, batch):
    module = classifier(label_smoothing=0.2, class_weights=WEIGHTS)
    batch["labels"][0] = IGNORED
    expected = cross_entropy(module.model(batch), batch["labels"], ignore_index=IGNORED)
    torch.testing.assert_close(module.evaluate(batch, "val").mean, expected)


def test_class_weights_keep_precision_under_autocast(classifier, sequences):
    module = classifier(class_weights=[1.001, 0.7003, 2.3007, 0.1])
    batch = {**sequences(301), "labels": torch.randint(4, (301,))}
    with torch.autocast("cpu", torch.bfloat16):
        loss, logits = module.loss_sum(batch), module.model(batch)
    assert logits.dtype == torch.bfloat16
    weight = module.loss_weights
    torch.testing.assert_close(loss.count, weight[batch["labels"]].sum())
    torch.testing.assert_close(loss.mean, cross_entropy(logits.float(), batch["labels"], weight))


def test_loss_is_invariant_to_scale_of_class_weights(classifier, batch):
    module = classifier(class_weights=[weight / 1000 for weight in WEIGHTS])
    expected = cross_entropy(module.model(batch), batch["labels"], torch.tensor(WEIGHTS))
    torch.testing.assert_close(module.loss_sum(batch).mean, expected)


def test_balanced_weights_equal_those_of_scikit_learn(classifier, sequences, data_module, quiet_trainer):
    labels = torch.tensor([0] * 7 + [1] * 2 + [2] * 3 + [3])
    data = data_module({**sequences(13), "labels": labels}, num_classes=4, class_counts=torch.bincount(labels).tolist())
    module = classifier(class_weights="balanced")
    quiet_trainer(max_steps=1, limit_val_batches=0).fit(module, datamodule=data)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels.numpy())
    np.testing.assert_allclose(module.loss_weights, expected, rtol=1e-6)
    assert not any("loss_weights" in key for key in module.state_dict())


def test_balanced_weight_of_absent_class_is_finite(classifier, sequences, data_module):
    module = classifier(class_weights="balanced")
    module.check_data(data_module({"labels": torch.zeros(1)}, class_counts=[6, 3, 3, 0]))
    assert module.loss_weights.isfinite().all()
    np.testing.assert_allclose(module.loss_weights[:3], [0.5, 1, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing=1.0 must be at least 0 and less than 1"),
        ({"label_smoothing": -0.1}, "label_smoothing=-0.1 must be"),
        ({"class_weights": [1.0, 2.0]}, r"class_weights: must be 4 numbers of at least 0, got \[1.0, 2.0\]"),
        ({"class_weights": [1.0, 2.0, -1.0, 1.0]}, "class_weights: must be 4 numbers of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(classifier, options, message):
    with pytest.raises(UserError, match=message):
        classifier(**options)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"num_classes": 5}, r"the data has 5 classes, the model 4 .*--model.decoder.num_classes=5"),
        (
            {"label_names": ["a", "b", "d", "c"]},
            r"the data's classes \(a, b, d, ... 4 in all\) differ from the model's",
        ),
        ({"num_classes": 4}, "class_weights=balanced: the data module does not count its classes"),
    ],
)
def test_data_that_does_not_fit_the_model_is_refused(
    classifier, batch, data_module, quiet_trainer, attributes, message
):
    module = classifier(class_weights="balanced", decoder={"label_names": ["a", "b", "c", "d"]})
    with pytest.raises(UserError, match=message) as error:
        quiet_trainer(max_steps=1).fit(module, datamodule=data_module(batch, **attributes))
    assert "\n" not in str(error.value)
