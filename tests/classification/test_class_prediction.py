"""Predictors of classifiers and regressors."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from perceiver_plugins.classification.config import RegressionDecoderConfig, TokenClassificationDecoderConfig
from perceiver_plugins.classification.lightning import LitTokenClassifier
from perceiver_plugins.classification.prediction import ClassPredictor, NumberPredictor, TokenPredictor
from perceiver_plugins.classification.regression import LitRegressor
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError


class DigitReader(Reader):
    """Reader of strings of digits, one token per digit."""

    padding_side = "right"

    def read(self, source: str) -> list[int]:
        if not source.isdigit():
            raise UserError(f"{source!r}: no digits")
        return [int(digit) for digit in source]

    def collate(self, examples):
        length = max(map(len, examples))
        ids, mask = torch.zeros(2, len(examples), length, dtype=torch.long)
        for i, example in enumerate(examples):
            unpadded = slice(length - len(example), None) if self.padding_side == "left" else slice(len(example))
            ids[i, unpadded], mask[i, unpadded] = torch.tensor(example), 1
        return {"input_ids": ids, "attention_mask": mask}

    def tokens(self, example: list[int]) -> list[str]:
        return [f"<{digit}>" for digit in example]


INPUTS = ["31", "4159", "2", "653589793"]


def probabilities(module, source: str) -> torch.Tensor:
    """Class probabilities of a single input, without padding."""
    ids = torch.tensor([[int(digit) for digit in source]])
    return module.model({"input_ids": ids}).softmax(dim=-1)[0].detach()


@pytest.fixture
def reader() -> DigitReader:
    return DigitReader({}, None)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_class_predictor_ranks_classes_by_probability(classifier, reader, batch_size):
    module = classifier(4, {"label_names": ["a", "b", "c", "d"]})
    predictions = ClassPredictor(module, reader, top_k=2, batch_size=batch_size).predict(INPUTS)
    assert [prediction["input"] for prediction in predictions] == INPUTS
    for source, prediction in zip(INPUTS, predictions, strict=True):
        best, numbers = probabilities(module, source).sort(descending=True)
        assert [each["label"] for each in prediction["top"]] == ["abcd"[number] for number in numbers[:2]]
        expected = pytest.approx(best[:2].tolist(), abs=1e-6)
        assert [each["probability"] for each in prediction["top"]] == expected
        assert (prediction["label"], prediction["probability"]) == tuple(prediction["top"][0].values())


def test_class_rows_have_one_row_per_input(classifier, reader):
    predictor = ClassPredictor(classifier(3, {"label_names": ["ham", "spam", "eggs"]}), reader, top_k=5)
    predictions = predictor.predict(["31", "4159"])
    rows = list(predictor.rows(predictions))
    assert [list(row) for row in rows] == [
        ["input", "label", "probability", "label 2", "probability 2", "label 3", "probability 3"]
    ] * 2
    for row, prediction in zip(rows, predictions, strict=True):
        assert row["input"] == prediction["input"]
        assert row["label"] == prediction["label"]
        assert row["probability"] == f"{prediction['probability']:.4f}"
        assert {row["label"], row["label 2"], row["label 3"]} == {"ham", "spam", "eggs"}


def test_classes_without_names_are_named_by_index(classifier, reader):
    (prediction,) = ClassPredictor(classifier(12), reader, top_k=12).predict(["3"])
    assert {each["label"] for each in prediction["top"]} == {str(number) for number in range(12)}


@pytest.mark.parametrize(("options", "message"), [({"top_k": 0}, "top_k=0"), ({"batch_size": 0}, "batch_size=0")])
def test_options_out_of_range_are_refused(classifier, reader, options, message):
    with pytest.raises(UserError, match=f"{message} must be at least 1"):
        ClassPredictor(classifier(), reader, **options)


def test_several_output_queries_are_refused(classifier, reader):
    module = classifier(decoder={"num_output_queries": 2})
    with pytest.raises(UserError, match="several output queries"):
        ClassPredictor(module, reader).predict(["31"])


@pytest.fixture
def token_classifier(model_config, randomise):
    decoder = TokenClassificationDecoderConfig(num_classes=3, label_names=["person", "city", "other"])
    module = LitTokenClassifier.create(model_config(decoder))
    randomise(module.model)
    with torch.no_grad():  # centre the logits, so that several classes are predicted
        every = torch.arange(11)[:, None]
        module.model.output_adapter.linear.bias -= module.model({"input_ids": every}).mean(dim=(0, 1))
    return module


def test_token_predictor_classifies_each_token(token_classifier, reader):
    predictions = TokenPredictor(token_classifier, reader, batch_size=3).predict(INPUTS)
    labels = set()
    for source, prediction in zip(INPUTS, predictions, strict=True):
        best, numbers = probabilities(token_classifier, source).max(dim=-1)
        assert [token["token"] for token in prediction["tokens"]] == [f"<{digit}>" for digit in source]
        expected = [["person", "city", "other"][number] for number in numbers]
        assert [token["label"] for token in prediction["tokens"]] == expected
        assert [token["probability"] for token in prediction["tokens"]] == pytest.approx(best.tolist(), abs=1e-6)
        labels.update(expected)
    assert len(labels) > 1


def test_token_predictor_with_padding_on_the_left(token_classifier, reader):
    reader.padding_side = "left"
    together = TokenPredictor(token_classifier, reader).predict(INPUTS)
    batch = reader.collate([reader.read(source) for source in INPUTS])
    classes = token_classifier.model(batch).argmax(dim=-1)
    for source, prediction, row in zip(INPUTS, together, classes.tolist(), strict=True):
        assert [token["label"] for token in prediction["tokens"]] == [
            ["person", "city", "other"][number] for number in row[-len(source) :]
        ]


def test_token_rows_have_one_row_per_run_of_a_class():
    tokens = [("New", "B", 0.5), ("York", "B", 0.7), (" is", "O", 0.9), ("Ulm", "B", 1.0)]
    prediction = {
        "input": "x",
        "tokens": [{"token": token, "label": label, "probability": p} for token, label, p in tokens],
    }
    rows = list(TokenPredictor.rows([prediction, prediction | {"input": "y"}]))
    assert [tuple(row.values()) for row in rows[:3]] == [
        ("x", "NewYork", "B", "0.6000"),
        ("x", " is", "O", "0.9000"),
        ("x", "Ulm", "B", "1.0000"),
    ]
    assert [row["input"] for row in rows] == ["x"] * 3 + ["y"] * 3
    assert list(rows[0]) == ["input", "text", "label", "mean probability"]


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["width", "height"], ["width", "height"]),
        (["input", "height"], ["input (target)", "height"]),
        (None, ["target 1", "target 2"]),
    ],
)
def test_number_predictor_returns_original_units(model_config, randomise, reader, names, keys):
    decoder = RegressionDecoderConfig(
        2,
        num_targets=2,
        num_output_query_channels=6,
        target_names=names,
        target_mean=[1000.0, -2.0],
        target_std=[50.0, 0.1],
    )
    module = LitRegressor.create(model_config(decoder))
    randomise(module.model)
    predictor = NumberPredictor(module, reader, batch_size=2)
    predictions = predictor.predict(INPUTS)
    for source, prediction in zip(INPUTS, predictions, strict=True):
        ids = torch.tensor([[int(digit) for digit in source]])
        expected = module.model({"input_ids": ids})[0].tolist()
        assert list(prediction) == ["input", *keys]
        assert prediction["input"] == source
        assert [prediction[key] for key in keys] == pytest.approx(expected, rel=1e-5)
    (row, *_) = predictor.rows(predictions)
    assert row == {"input": "31", **{key: str(predictions[0][key]) for key in keys}}


def test_label_names_are_checked_against_data(classifier):
    module = classifier(3, {"label_names": ["x", "y", "z"]})
    assert module.label_names == ["x", "y", "z"]
    module.check_data(SimpleNamespace(label_names=("x", "y", "z"), num_classes=3))
