"""What classifiers and regressors say in ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor

from perceiver_plugins.classification.lightning import LitClassifier, LitTokenClassifier
from perceiver_plugins.classification.regression import LitRegressor
from perceiver_plugins.sdk.prediction.predictor import Prediction, Predictor, best_classes, class_record, class_row
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_registry import UserError


class ClassPredictor(Predictor):
    """Predicts the class of each input.

    Args:
        module: the classifier.
        reader: reads the inputs.
        top_k: how many classes to show, the most probable one first.
        batch_size: inputs that go through the model together.
        attention: a folder, made if need be, to draw into what the model looked at in each input: as overlays of
            images, as coloured HTML pages of texts. Null: nothing is drawn.
    """

    def __init__(
        self,
        module: LitClassifier,
        reader: Reader,
        top_k: int = 3,
        batch_size: int = 32,
        attention: str | None = None,
    ):
        super().__init__(module, reader, batch_size, attention)
        if top_k < 1:
            raise UserError(f"top_k={top_k} must be at least 1")
        self.label_names = module.label_names
        self.top_k = min(top_k, len(self.label_names))

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        if output.dim() == 3:
            raise UserError(
                "a model with several output queries classifies each input several times: no table for that"
            )
        return best_classes(output, self.label_names, self.top_k)

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        return map(class_row, predictions)

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        return map(class_record, predictions)


class TokenPredictor(Predictor):
    """Predicts the class of each token of each input.

    Args:
        module: the token classifier.
        reader: reads the inputs.
        batch_size: inputs that go through the model together.
        attention: a folder, made if need be, to draw into what the model looked at in each input.
    """

    module: LitTokenClassifier

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        best, numbers = output.float().softmax(dim=-1).max(dim=-1)
        names = self.module.label_names
        answers = []
        padded_left = self.reader.padding_side == "left"
        for example, row, probabilities in zip(examples, numbers.tolist(), best.tolist(), strict=True):
            tokens = self.reader.tokens(example)
            own = slice(len(row) - len(tokens), None) if padded_left else slice(len(tokens))  # the rest is padding
            answers.append(
                {
                    "tokens": [
                        {"token": token, "label": names[number], "probability": probability}
                        for token, number, probability in zip(tokens, row[own], probabilities[own], strict=True)
                    ]
                }
            )
        return answers

    @classmethod
    def rows(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """One row for each run of neighbours of one class."""
        for record in cls.records(predictions):
            yield record | {"mean probability": f"{record['mean probability']:.4f}"}

    @classmethod
    def records(cls, predictions: Sequence[Prediction]) -> Iterator[dict[str, Any]]:
        """One row for each run of neighbours of one class."""
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
    """Predicts the numbers that go with each input.

    Args:
        module: the regressor.
        reader: reads the inputs.
        batch_size: inputs that go through the model together.
        attention: a folder, made if need be, to draw into what the model looked at in each input.
    """

    module: LitRegressor

    def answers(self, output: Tensor, examples: Sequence[Any]) -> list[Prediction]:
        decoder = self.module.config.decoder
        names = decoder.target_names or [f"target {number}" for number in range(1, decoder.num_targets + 1)]
        return [dict(zip(names, row, strict=True)) for row in output.double().tolist()]

    @staticmethod
    def rows(predictions: Sequence[Prediction]) -> Iterator[dict[str, str]]:
        """Numbers with all of their digits: nobody knows which of them matter."""
        for prediction in predictions:
            yield {name: str(value) for name, value in prediction.items()}
