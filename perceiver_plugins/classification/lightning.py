"""Lightning modules for classification of any input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot
from torchmetrics import MetricCollection

from perceiver_core import Batch, DecoderConfig, EncoderConfig, ModelConfig
from perceiver_core.config import Init
from perceiver_plugins.checkpoints.random_data import num_examples
from perceiver_plugins.classification.metrics import (
    MeanAveragePrecision,
    class_metrics,
    log_confusion,
    multi_label_metrics,
)
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import list_first
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_registry import UserError

STAGE_DATA = {"val": "validation", "test": "test"}
"""Names of the data of each stage in messages."""

DEFAULT_THRESHOLD = 0.5
"""Threshold of multi-label models, above which the presence of a class is more probable than its absence."""


class DecodedClasses:
    """Mixin of Lightning modules whose decoder config has ``num_classes`` and ``label_names``."""

    config: ModelConfig[Any, Any]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.config.decoder.num_classes

    @property
    def label_names(self) -> list[str]:
        """Names of the classes; by default, their indices."""
        return self.config.decoder.label_names or [str(index) for index in range(self.num_classes)]

    @property
    def multi_label(self) -> bool:
        """Inputs have any number of classes."""
        return bool(getattr(self.config.decoder, "multi_label", False))

    @property
    def threshold(self) -> float:
        """Probability above which a class of a multi-label model is predicted."""
        threshold: float | None = getattr(self.config.decoder, "threshold", None)
        return DEFAULT_THRESHOLD if threshold is None else threshold


class LitClassifier(DecodedClasses, LitPerceiver):
    """Classifier of any input: text, images, ...

    For validation and test data, it logs the loss, the accuracy, the top-5 accuracy (with more than five classes), the
    macro F1 score and, as an image, the confusion matrix.

    If the decoder config has ``multi_label``, the loss is the binary cross-entropy of each class, and the metrics are
    the mean average precision, and the macro and micro F1 scores at the decoder's ``threshold``.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: encoder configuration of any input adapter.
        decoder: decoder configuration with classes.
        label_smoothing: probability mass of the target that is spread evenly over all classes in training or, with
            multi_label, over the presence and absence of each class.
        class_weights: weights of the classes in the training loss: one number per class, or "balanced" for the inverse
            of each class's frequency in the training data. With multi_label, weights of the presence of each class, or
            "balanced" for the ratio of examples without the class to examples with it. None: equal weights.

    Raises:
        UserError: if a value is out of range.
    """

    task = "classification"
    throughput = "examples_per_second"
    progress_metrics = ("accuracy", "top5_accuracy", "map")
    loss_weights: Tensor

    def __init__(
        self,
        encoder: EncoderConfig,
        decoder: DecoderConfig,
        num_latents: int = 256,
        num_latent_channels: int = 512,
        activation_checkpointing: bool = False,
        activation_offloading: bool = False,
        init: Init = "normal",
        params: str | None = None,
        compile: bool = False,
        optimizer: Mapping[str, Any] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        task: str | None = None,
        ema_decay: float | None = None,
        patience: int | None = None,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
    ):
        super().__init__(
            encoder,
            decoder,
            num_latents,
            num_latent_channels,
            activation_checkpointing,
            activation_offloading,
            init,
            params,
            compile,
            optimizer,
            lr_scheduler,
            task,
            ema_decay,
            patience,
        )
        if self.num_classes < 2:
            raise UserError("num_classes=1: must be at least 2 to train a classifier")
        if not 0.0 <= label_smoothing < 1.0:
            raise UserError(f"label_smoothing={label_smoothing} must be at least 0 and less than 1")
        self._reported: set[str] = set()
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        weights = torch.ones(self.num_classes)
        if isinstance(class_weights, list):
            if len(class_weights) != self.num_classes or min(class_weights) < 0:
                raise UserError(f"class_weights: must be {self.num_classes} numbers of at least 0, got {class_weights}")
            weights = torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("loss_weights", weights, persistent=False)
        if not self.multi_label and getattr(decoder, "threshold", None) is not None:
            raise UserError(
                f"decoder.threshold={decoder.threshold}: has no effect without decoder.multi_label (leave it out)"  # type: ignore[attr-defined]
            )
        several = self.multi_label
        self.add_metrics(
            multi_label_metrics(self.num_classes, self.threshold) if several else class_metrics(self.num_classes)
        )

    def check_data(self, datamodule: Any) -> None:
        """Check that data and model have the same classes; set balanced class weights.

        Raises:
            UserError: if the classes differ, or if class_weights="balanced" and the data module lacks ``class_counts``.
        """
        super().check_data(datamodule)
        names = getattr(datamodule, "label_names", None)
        model_names = self.config.decoder.label_names
        if names is not None and model_names is not None and list(names) != list(model_names):
            raise UserError(
                f"the data's classes ({list_first(names)}) differ from the model's ({list_first(model_names)}) "
                "(train a new model with --model.encoder.params set to the checkpoint)"
            )
        number = getattr(datamodule, "num_classes", None)
        if number is not None and number != self.num_classes:
            raise UserError(
                f"the data has {number} classes, the model {self.num_classes} (a new model can be trained with "
                f"--model.decoder.num_classes={number})"
            )
        several = getattr(datamodule, "multi_label", None)
        if several is not None and several != self.multi_label:
            raise UserError(
                f"the data has {_describe_label_kind(several)}, the model {_describe_label_kind(self.multi_label)} "
                f"(--model.decoder.multi_label={str(several).lower()} trains a new model for it)"
            )
        if self.class_weights == "balanced":
            self.loss_weights.copy_(self._balanced_weights(datamodule))

    def _balanced_weights(self, datamodule: Any) -> Tensor:
        """Return the weight of each class by its frequency in the training data, (classes,)."""
        counts = getattr(datamodule, "class_counts", None)
        if counts is None:
            raise UserError("class_weights=balanced: the data module does not count its classes (pass numbers)")
        frequencies = torch.tensor(counts, dtype=torch.float32)
        if self.multi_label:
            return (datamodule.num_train_examples - frequencies).clamp(min=1) / frequencies.clamp(min=1)
        return frequencies.sum() / (len(counts) * frequencies.clamp(min=1))

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        queries = self.config.decoder.num_output_queries
        shape = (num_examples(batch),) if queries == 1 else (num_examples(batch), queries)
        if self.multi_label:
            return torch.randint(2, (*shape, self.num_classes), generator=generator).float()
        return torch.randint(self.num_classes, shape, generator=generator)

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return len(batch["labels"])

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the logits of all labelled outputs.

        Args:
            batch: the input adapter's entries, and ``labels``: class indices (b) or (b, o), or probabilities
                (b, classes) of mixed labels; of a multi-label model, 0 or 1 for each class, (b, classes) or
                (b, o, classes), NaN or IGNORED where unknown.

        Returns:
            Logits (labelled outputs, classes), and their labels (labelled outputs,) or (labelled outputs, classes).

        Raises:
            UserError: if the number of labels is not the number of output queries.
        """
        logits, labels = self.model(batch), batch["labels"]
        expected = logits.shape if labels.is_floating_point() or self.multi_label else logits.shape[:-1]
        if labels.shape != expected:
            raise UserError(
                f"labels: must have shape {tuple(expected)}, got {tuple(labels.shape)} "
                + (
                    "(0 or 1 for each class, as the model is multi_label)"
                    if self.multi_label
                    else "(one label per example for each of the decoder's num_output_queries)"
                )
            )
        if self.multi_label:
            several = labels.float().masked_fill(labels == IGNORED, math.nan).flatten(0, -2)
            labelled = ~several.isnan().all(dim=-1)
            return logits.flatten(0, -2)[labelled], several[labelled]
        if labels.is_floating_point():
            return logits, labels
        labelled = labels != IGNORED
        return logits[labelled], labels[labelled].long()

    def loss_sum(self, batch: Batch) -> LossSum:
        """Sum the cross-entropy, in nats, with smoothed labels and class weights."""
        logits, labels = self.predictions(batch)
        if self.multi_label:
            smoothed = labels * (1 - self.label_smoothing) + self.label_smoothing / 2
            return binary_loss_sum(logits, smoothed, self.loss_weights)
        targets = (labels if labels.is_floating_point() else one_hot(labels, self.num_classes)).float()
        # A mixed label gets the mean of its classes' weights. No matrix product: autocast would round the weights.
        weights = (targets * self.loss_weights).sum(dim=-1)
        smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return LossSum((weights * cross_entropy(logits.float(), smoothed, reduction="none")).sum(), weights.sum())

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """Sum the cross-entropy without label smoothing and class weights; update the metrics."""
        logits, labels = self.predictions(batch)
        metrics = cast(MetricCollection, self.metrics[stage])
        if self.multi_label:
            if len(labels):
                metrics.update(logits.float().sigmoid(), labels.nan_to_num(IGNORED).long())
            return binary_loss_sum(logits, labels)
        if len(labels):
            metrics.update(logits.float(), labels)
        total = cross_entropy(logits.float(), labels, reduction="sum")
        return LossSum(total, torch.tensor(len(labels), device=total.device))

    def log_metrics(self, stage: str) -> None:
        super().log_metrics(stage)
        if self.multi_label:
            self._report_absent_classes(stage)
            return
        confusion = cast(MetricCollection, self.metrics[stage])["confusion"].compute()
        if not self.trainer.sanity_checking:
            log_confusion(self.trainer, f"{stage}_confusion", confusion, self.label_names)

    def _report_absent_classes(self, stage: str) -> None:
        """Warn, once for each stage, about classes without an example in the evaluation data."""
        metric = cast(MeanAveragePrecision, cast(MetricCollection, self.metrics[stage])["map"])
        if metric.absent and not self.trainer.sanity_checking and stage not in self._reported:
            self._reported.add(stage)
            absent = [self.label_names[index] for index in metric.absent]
            rank_zero_warn(
                f"{len(absent)} of {self.num_classes} classes have no example in the {STAGE_DATA[stage]} data "
                f"({list_first(absent)}): {stage}_map leaves them out, and their F1 score is 0"
            )


def binary_loss_sum(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> LossSum:
    """Sum the binary cross-entropy of each class, in nats, and count the known labels.

    Args:
        logits: (b, classes).
        labels: (b, classes), probabilities of the presence of each class; NaN where unknown.
        weights: (classes,) weights of the presence of each class. None: 1.
    """
    known = ~labels.isnan()
    each = binary_cross_entropy_with_logits(
        logits.float(), labels.masked_fill(~known, 0), pos_weight=weights, reduction="none"
    )
    return LossSum((each * known).sum(), known.sum())


def _describe_label_kind(multi_label: bool) -> str:
    """Describe the number of classes per example for a message."""
    return "any number of classes per example (multi_label)" if multi_label else "one class per example"


class LitTokenClassifier(LitClassifier):
    """Classifier of every input position: of each token of a text, or each patch of an image."""

    task = "token-classification"

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        adapted = self.model.input_adapter(batch)  # type: ignore[operator]
        labels = torch.randint(self.num_classes, adapted.x.shape[:2], generator=generator)
        return labels if adapted.pad_mask is None else labels.masked_fill(adapted.pad_mask, IGNORED)

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Compute the logits of the labelled positions; others are not decoded. ``labels`` are (b, m)."""
        labelled = batch["labels"] != IGNORED
        return self.model(batch, positions=labelled), batch["labels"][labelled]
