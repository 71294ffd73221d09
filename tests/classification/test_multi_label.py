"""Multi-label classifiers, compared with torch and scikit-learn."""

from __future__ import annotations

import copy
import csv
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss
from torch.nn.functional import binary_cross_entropy_with_logits

from perceiver_plugins.classification.prediction import ClassPredictor
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.prediction.predictor import class_record
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError

NUM_CLASSES = 5
THRESHOLD = 0.35

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers.*", "ignore:.*not resumable.*", "ignore:.*LeafSpec.*"
)


@pytest.fixture
def tagger(classifier):
    """Function that creates a multi-label classifier with random weights."""

    def tagger(decoder: dict[str, Any] | None = None, **options: Any):
        return classifier(NUM_CLASSES, {"multi_label": True, **(decoder or {})}, **options)

    return tagger


@pytest.fixture
def batch(sequences):
    return {**sequences(41), "labels": torch.randint(2, (41, NUM_CLASSES)).float()}


def hide_some(labels: torch.Tensor) -> torch.Tensor:
    """Replace some labels, and all of the first examples, by NaN."""
    hidden = torch.rand(labels.shape) < 0.2
    hidden[:3] = True
    return labels.masked_fill(hidden, math.nan)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(("smoothing", "weights"), [(0.0, None), (0.2, None), (0.0, [2.0, 0.25, 1.0, 3.0, 0.0])])
def test_loss_equals_binary_cross_entropy(tagger, batch, smoothing, weights, hidden):
    module = tagger(label_smoothing=smoothing, class_weights=weights)
    labels = batch["labels"] = hide_some(batch["labels"]) if hidden else batch["labels"]
    known = ~labels.isnan()
    each = binary_cross_entropy_with_logits(
        module.model(batch),
        labels.nan_to_num(0) * (1 - smoothing) + smoothing / 2,
        pos_weight=None if weights is None else torch.tensor(weights),
        reduction="none",
    )
    loss = module.loss_sum(batch)
    torch.testing.assert_close(loss.mean, each[known].mean())
    assert loss.count == known.sum()
    loss.mean.backward()
    gradients = [parameter.grad for parameter in module.model.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_integer_labels_have_the_same_loss(tagger, batch):
    module = tagger()
    batch["labels"] = hide_some(batch["labels"])
    integers = {**batch, "labels": batch["labels"].nan_to_num(IGNORED).long()}
    torch.testing.assert_close(module.loss_sum(integers).mean, module.loss_sum(batch).mean, rtol=0, atol=0)


def test_several_output_queries_have_labels_of_their_own(tagger, sequences):
    module = tagger({"num_output_queries": 3})
    labels = torch.randint(2, (4, 3, NUM_CLASSES)).float()
    batch = {**sequences(4), "labels": labels}
    expected = binary_cross_entropy_with_logits(module.model(batch), labels)
    torch.testing.assert_close(module.loss_sum(batch).mean, expected)


def test_other_shapes_are_refused(tagger, batch):
    batch["labels"] = torch.randint(NUM_CLASSES, (41,))
    with pytest.raises(UserError, match=r"labels: must have shape \(41, 5\), got \(41,\) \(0 or 1 for each class"):
        tagger().loss_sum(batch)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(("stage", "batch_size"), [("val", 7), ("test", 100)])
@pytest.mark.filterwarnings("ignore:1 of 5 classes have no example")
def test_metrics_equal_those_of_scikit_learn(tagger, batch, data_module, quiet_trainer, stage, batch_size, hidden):
    module = tagger({"threshold": THRESHOLD}, label_smoothing=0.3)
    labels = hide_some(batch["labels"]) if hidden else batch["labels"].clone()
    labels[labels[:, 2] == 1, 2] = 0
    batch["labels"] = labels
    scores = module.model(batch).sigmoid().detach().numpy()
    known = ~labels.isnan().numpy()
    truth = labels.nan_to_num(0).numpy().astype(int)
    predicted = scores > THRESHOLD
    columns = range(NUM_CLASSES)
    with_examples = [column for column in columns if column != 2]
    expected = {
        "loss": log_loss(truth[known], scores[known].astype(np.float64)),
        "map": np.mean([average_precision_score(truth[known[:, c], c], scores[known[:, c], c]) for c in with_examples]),
        "f1": np.mean([f1_score(truth[known[:, c], c], predicted[known[:, c], c], zero_division=0) for c in columns]),
        "f1_micro": f1_score(truth[known], predicted[known]),
    }
    evaluate = {"val": quiet_trainer().validate, "test": quiet_trainer().test}[stage]
    for _ in range(2):  # metrics are reset between runs
        (metrics,) = evaluate(module, datamodule=data_module(batch, batch_size), verbose=False)
        assert metrics == pytest.approx({f"{stage}_{name}": value for name, value in expected.items()}, rel=1e-5)


def test_classes_without_examples_are_reported_once(tagger, batch, data_module, quiet_trainer):
    module = tagger({"label_names": list("abcde")})
    batch["labels"][:, 1] = 0
    message = r"1 of 5 classes have no example in the validation data \(b\): val_map leaves them out"
    with pytest.warns(UserWarning, match=message):
        quiet_trainer().validate(module, datamodule=data_module(batch), verbose=False)
    batch["labels"][:] = 0
    (metrics,) = quiet_trainer().validate(module, datamodule=data_module(batch), verbose=False)
    assert metrics.keys() == {"val_loss", "val_f1", "val_f1_micro"}, "the mean over no class is not a number"
    assert all(map(math.isfinite, metrics.values()))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:1 of 5 classes have no example")
def test_metrics_of_two_processes_equal_those_of_one(tagger, batch, data_module, quiet_trainer):
    batch["labels"] = hide_some(batch["labels"])
    batch["labels"][:, 4] = 0
    batch["labels"][::2, 0] = 0  # in one of the processes, the class has no example
    module = tagger()
    # A copy, since metrics updated in inference mode cannot be used outside of it.
    (one,) = quiet_trainer().validate(copy.deepcopy(module), datamodule=data_module(batch, 6), verbose=False)
    two_processes = quiet_trainer(devices=2, strategy="ddp_fork")
    (two,) = two_processes.validate(module, datamodule=data_module(batch, 3), verbose=False)
    assert two == pytest.approx(one, rel=1e-5)


def test_balanced_weights_are_ratios_of_absence_to_presence(tagger, batch, data_module):
    counts = [10, 41, 0, 5, 1]
    module = tagger(class_weights="balanced")
    module.check_data(data_module(batch, class_counts=counts))
    torch.testing.assert_close(module.loss_weights, torch.tensor([31 / 10, 1 / 41, 41, 36 / 5, 40]))


@pytest.mark.parametrize("several", [False, True])
def test_data_of_the_other_kind_is_refused(classifier, batch, data_module, several):
    message = f"--model.decoder.multi_label={str(several).lower()} trains a new model for it"
    with pytest.raises(UserError, match=message):
        classifier(NUM_CLASSES, {"multi_label": not several}).check_data(data_module(batch, multi_label=several))
    classifier(NUM_CLASSES, {"multi_label": several}).check_data(data_module(batch, multi_label=several))


def test_threshold_needs_several_labels(classifier):
    with pytest.raises(UserError, match=r"decoder.threshold=0.3: has no effect without decoder.multi_label"):
        classifier(NUM_CLASSES, {"threshold": 0.3})
    with pytest.raises(ValueError, match=r"threshold=1.0: must be at least 0 and below 1"):
        classifier(NUM_CLASSES, {"multi_label": True, "threshold": 1.0})


class DigitReader(Reader):
    """Reader of strings of digits of one length, one token per digit."""

    def read(self, source: str) -> torch.Tensor:
        return torch.tensor([int(digit) for digit in source])

    def collate(self, examples):
        return {"input_ids": torch.stack(examples)}


@pytest.mark.parametrize("threshold", [None, 0.0, 0.6])
def test_predictor_lists_the_classes_above_the_threshold(tagger, threshold):
    module = tagger({"label_names": list("abcde"), "threshold": THRESHOLD})
    inputs = ["3141", "5926", "5358"]
    predictor = ClassPredictor(module, DigitReader({}, None), top_k=2, batch_size=2, threshold=threshold)
    predictions = predictor.predict(inputs)
    limit = THRESHOLD if threshold is None else threshold
    for source, prediction in zip(inputs, predictions, strict=True):
        ids = torch.tensor([[int(digit) for digit in source]])
        scores = dict(zip("abcde", module.model({"input_ids": ids})[0].sigmoid().tolist(), strict=True))
        ranked = sorted(scores, key=scores.__getitem__, reverse=True)
        expected = [
            {"label": name, "probability": pytest.approx(scores[name], abs=1e-6)}
            for name in ranked
            if scores[name] > limit
        ]
        assert prediction == {
            "input": source,
            "labels": expected,
            "top": [{"label": name, "probability": pytest.approx(scores[name], abs=1e-6)} for name in ranked[:2]],
        }
    sizes = {len(prediction["labels"]) for prediction in predictions}
    assert sizes == {5} if threshold == 0.0 else sizes != {5}
    records = list(predictor.records(predictions))
    assert [list(record) for record in records] == [
        ["input", "labels", "label", "probability", "label 2", "probability 2"]
    ] * 3
    assert records[0]["labels"] == ", ".join(each["label"] for each in predictions[0]["labels"])


def test_names_with_commas_are_distinct_in_tables():
    names = ["rain, heavy", "wind", 'so-called "sun"']
    record = class_record({"input": "x", "labels": [{"label": name} for name in names], "top": []})
    (found,) = csv.reader([record["labels"]], skipinitialspace=True)
    assert found == names
    assert class_record({"input": "x", "labels": [], "top": []})["labels"] == ""


def test_predictor_refuses_thresholds_without_effect(classifier, tagger):
    with pytest.raises(UserError, match=r"threshold=0.5: has no effect, as the model predicts one class"):
        ClassPredictor(classifier(), DigitReader({}, None), threshold=0.5)
    with pytest.raises(UserError, match=r"threshold=1.5 must be at least 0 and below 1"):
        ClassPredictor(tagger(), DigitReader({}, None), threshold=1.5)
