"""Predictors of classifiers and regressors for ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor

from perceiver_plugins.classification.lightning import LitClassifier, LitTokenClassifier
from perceiver_plugins.classification.regression import LitRegressor
from perceiver_plugins.sdk.prediction.predictor import (
    Prediction,
    Predictor,
    best_classes,
    class_record,
    class_row,
    present_classes,
)
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError


class ClassPredictor(Predictor):
    """Predictor of the class of each input or, with a multi-label model, of any number of classes.

    Args:
        module: the classifier.
        reader: reader of the inputs.
        top_k: number of classes to show, the most probable one first.
        batch_size: inputs per batch.
        attention: folder for attention maps of the inputs, created if missing: overlays of images, coloured HTML pages
            of texts. Null: no attention maps.
        threshold: probability above which a multi-label model predicts a class. Null: that of training.
    """

    def __init__(
        self,
        module: LitClassifier,
        reader: Reader,
        top_k: int = 3,
        batch_size: int = 32,
        attention: str | None = None,
        threshold: float | None = None,
    ):
        super().__init__(module, reader, batch_size, attention)
        if top_k < 1:
            raise UserError(f"top_k={top_k} must be at least 1")
        self.multi_label = getattr(module, "multi_label", False)  # modules of plugins may lack it
        if threshold is not None and not self.multi_label:
            raise UserError(f"threshold={threshold}: has no effect, as the model predicts one class (leave it out)")
        if threshold is not None and not 0 <= threshold < 1:
            raise UserError(f"threshold={threshold} must be at least 0 and below 1")
        self.threshold = threshold if threshold is not None or not self.multi_label else module.threshold
        self.label_names = module.label_names
        self.top_k = min(top_k, len(self.label_names))

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        if output.dim() == 3:
            raise UserError(
                "a model with several output queries has several classes per input (predict supports only one)"
            )
        if self.multi_label:
            assert self.threshold is not None
            return present_classes(output, self.label_names, self.top_k, self.threshold)
        return best_classes(output, self.label_names, self.top_k)

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        return map(class_row, predictions)

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        return map(class_record, predictions)


class TokenPredictor(Predictor):
    """Predictor of the class of each token of each input.

    Args:
        module: the token classifier.
        reader: reader of the inputs.
        batch_size: inputs per batch.
        attention: folder for attention maps of the inputs, created if missing. Null: no attention maps.
    """

    module: LitTokenClassifier

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        best, classes = output.float().softmax(dim=-1).max(dim=-1)
        names = self.module.label_names
        predictions = []
        padded_left = self.reader.padding_side == "left"
        for example, row, probabilities in zip(examples, classes.tolist(), best.tolist(), strict=True):
            tokens = self.reader.tokens(example)
            unpadded = slice(len(row) - len(tokens), None) if padded_left else slice(len(tokens))
            predictions.append(
                {
                    "tokens": [
                        {"token": token, "label": names[index], "probability": probability}
                        for token, index, probability in zip(
                            tokens, row[unpadded], probabilities[unpadded], strict=True
                        )
                    ]
                }
            )
        return predictions

    @classmethod
    def rows(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Yield one row per run of consecutive tokens of one class."""
        for record in cls.records(predictions):
            yield record | {"mean probability": f"{record['mean probability']:.4f}"}

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """Yield one row per run of consecutive tokens of one class."""
        for prediction in predictions:
            for label, run in groupby(prediction["tokens"], key=lambda token: token["label"]):
                tokens = list(run)
                probability = sum(token["probability"] for token in tokens) / len(tokens)
                text = "".join(token["token"] for token in tokens)
                yield {
                    "input": prediction["input"],
                    "text": text,
                    "label": label,
                    "mean probability": probability,
                }


class NumberPredictor(Predictor):
    """Predictor of the targets of each input.

    Predictions have the names of the targets; that of a target named "input" is "input (target)".

    Args:
        module: the regressor.
        reader: reader of the inputs.
        batch_size: inputs per batch.
        attention: folder for attention maps of the inputs, created if missing. Null: no attention maps.
    """

    module: LitRegressor

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        names = [f"{name} (target)" if name == "input" else name for name in self.module.target_names]
        return [dict(zip(names, row, strict=True)) for row in output.double().tolist()]

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Yield one row per input, numbers with all digits: the precision of a prediction is unknown."""
        for prediction in predictions:
            yield {name: str(value) for name, value in prediction.items()}
