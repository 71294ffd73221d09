"""Metrics and confusion matrix of classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MultilabelAveragePrecision,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.tasks.pictures import drawable, optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CLASSES_DRAWN = 64
"""Most classes for which the confusion matrix is drawn; arbitrary."""

MAX_CLASSES_NAMED = 20
"""Most classes whose names and counts fit into the drawing of the confusion matrix."""


def class_metrics(num_classes: int) -> dict[str, Metric]:
    """Create accuracy, top-5 accuracy (for more than five classes), macro F1 and confusion matrix.

    Args:
        num_classes: number of classes.
    """
    metrics: dict[str, Metric] = {
        "accuracy": MulticlassAccuracy(num_classes, average="micro"),
        "f1": MulticlassF1Score(num_classes, average="macro"),
        "confusion": MulticlassConfusionMatrix(num_classes),
    }
    if num_classes > 5:
        metrics["top5_accuracy"] = MulticlassAccuracy(num_classes, average="micro", top_k=5)
    return metrics


def multi_label_metrics(num_classes: int, threshold: float) -> dict[str, Metric]:
    """Create mean average precision, and macro and micro F1.

    They are updated with probabilities (b, classes) and labels (b, classes): 0, 1, or ``IGNORED`` where unknown.

    Args:
        num_classes: number of classes.
        threshold: probability above which a class is predicted.
    """
    options: dict[str, Any] = {"threshold": threshold, "ignore_index": IGNORED}
    return {
        "map": MeanAveragePrecision(num_classes, ignore_index=IGNORED),
        "f1": MultilabelF1Score(num_classes, average="macro", **options),
        "f1_micro": MultilabelF1Score(num_classes, average="micro", **options),
    }


class MeanAveragePrecision(MultilabelAveragePrecision):
    """Mean average precision over the classes that have an example; it is undefined for the others.

    Attributes:
        absent: indices of the classes without an example at the last computation.
    """

    absent: tuple[int, ...] = ()

    def compute(self) -> Tensor:  # type: ignore[override]
        """Return the mean; an empty tensor, which is not logged, if no class has an example."""
        if not len(self.target):
            return torch.empty(0, device=self.device)
        scores, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        has_examples = (labels == 1).any(dim=0)
        self.absent = tuple((~has_examples).nonzero()[:, 0].tolist())
        each = [
            binary_average_precision(scores[:, column], labels[:, column], ignore_index=self.ignore_index)
            for column in has_examples.nonzero()[:, 0].tolist()
        ]
        return torch.stack(each).mean() if each else scores.new_empty(0)


def log_confusion(trainer: Trainer, name: str, confusion: Tensor, label_names: list[str]) -> None:
    """Log a confusion matrix as an image to every TensorBoard logger; a failure to draw it is a warning.

    Args:
        trainer: trainer with the loggers.
        name: name of the image.
        confusion: (classes, classes), counts by true class (row) and predicted class (column).
        label_names: names of the classes.
    """
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    if not loggers or not trainer.is_global_zero or len(label_names) > MAX_CLASSES_DRAWN:
        return
    with optional(f"picture {name}"):
        figure = draw_confusion(confusion, label_names)
        for logger in loggers:
            logger.experiment.add_figure(name, figure, trainer.global_step)


def draw_confusion(confusion: Tensor, label_names: list[str]) -> Figure:
    """Draw a confusion matrix (classes, classes) with the counts above 0; names are plain text, not formulas."""
    from matplotlib.figure import Figure  # deferred: only needed to draw

    named = len(label_names) <= MAX_CLASSES_NAMED
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    counts = confusion.tolist()
    axes.imshow(counts, cmap="Blues")
    if named:
        names = [drawable(name) for name in label_names]
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        half = max(map(max, counts)) / 2
        for true, row in enumerate(counts):
            for predicted, count in enumerate(row):
                if count:  # most are 0, and drawing them all takes longer than the rest of the picture
                    colour = "white" if count > half else "black"
                    axes.text(predicted, true, str(count), ha="center", va="center", color=colour)
    return figure
