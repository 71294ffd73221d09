"""Training of classifiers of any input with Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics import MetricCollection

from perceiver_core import Batch, DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_core.config import Init
from perceiver_plugins.checkpoints.random_data import num_examples
from perceiver_plugins.classification.metrics import class_metrics, log_confusion
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_registry import UserError


class DecodedClasses:
    """What Lightning modules say of the classes that their decoders tell apart: mix it in before the module."""

    config: PerceiverConfig

    @property
    def num_classes(self) -> int:
        """Number of classes that the model tells apart."""
        return self.config.decoder.num_classes

    @property
    def label_names(self) -> list[str]:
        """What the classes are called; their numbers where nobody said."""
        return self.config.decoder.label_names or [str(number) for number in range(self.num_classes)]


class LitClassifier(DecodedClasses, LitPerceiver):
    """Tells which class an input belongs to, whatever it is: text, an image, ...

    Logged beside the loss are, for validation and test data, the accuracy, the top-5 accuracy (where there are more
    than five classes), and the mean over classes of the F1 score; and as a picture the confusion matrix.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: the encoder's configuration, of any input adapter.
        decoder: the decoder's configuration, of classes.
        label_smoothing: part of the target that is spread evenly over all classes in training.
        class_weights: how much each class counts in the training loss: a number a class, or "balanced" for the
            inverse of its frequency in the training data. None: all examples count the same.

    Raises:
        UserError: if a value is out of range.
    """

    task = "classification"
    throughput = "examples_per_second"
    progress_metrics = ("accuracy", "top5_accuracy")
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
            raise UserError("num_classes=1: there is nothing to tell apart; a classifier is trained on two or more")
        if not 0.0 <= label_smoothing < 1.0:
            raise UserError(f"label_smoothing={label_smoothing} must be at least 0 and less than 1")
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        weights = torch.ones(self.num_classes)
        if isinstance(class_weights, list):
            if len(class_weights) != self.num_classes or min(class_weights) < 0:
                raise UserError(
                    f"class_weights: {self.num_classes} numbers of at least 0 are expected, got {class_weights}"
                )
            weights = torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("loss_weights", weights, persistent=False)
        self.add_metrics(class_metrics(self.num_classes))

    def check_data(self, datamodule: Any) -> None:
        """Checks that the data's classes are the model's, and takes the weights that balance them.

        Raises:
            UserError: if they are not.
        """
        super().check_data(datamodule)
        names = getattr(datamodule, "label_names", None)
        ours = self.config.decoder.label_names
        if names is not None and ours is not None and list(names) != list(ours):
            raise UserError(
                f"the data's classes ({_few(names)}) are not the model's ({_few(ours)}): "
                "data with other classes needs a new decoder, --model.encoder.params takes over the encoder alone"
            )
        number = getattr(datamodule, "num_classes", None)
        if number is not None and number != self.num_classes:
            raise UserError(
                f"the data has {number} classes, the model {self.num_classes}: a model that is not trained yet can "
                f"have --model.decoder.num_classes={number}"
            )
        if self.class_weights == "balanced":
            counts = getattr(datamodule, "class_counts", None)
            if counts is None:
                raise UserError("class_weights=balanced: this data does not say how often each class occurs")
            frequencies = torch.tensor(counts, dtype=torch.float32)
            self.loss_weights.copy_(frequencies.sum() / (len(counts) * frequencies.clamp(min=1)))

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        queries = self.config.decoder.num_output_queries
        shape = (num_examples(batch),) if queries == 1 else (num_examples(batch), queries)
        return torch.randint(self.num_classes, shape, generator=generator)

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return len(batch["labels"])

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The model's answers to all that has a label.

        Args:
            batch: what the input adapter reads, and ``labels``: (b) or (b, q) class numbers, or (b, classes) parts of
                a label that is mixed of several.

        Returns:
            Logits (p, classes), and labels (p) or (p, classes).

        Raises:
            UserError: if there is not a label for each output query.
        """
        logits, labels = self.model(batch), batch["labels"]
        expected = logits.shape if labels.is_floating_point() else logits.shape[:-1]
        if labels.shape != expected:
            raise UserError(
                f"labels of shape {tuple(labels.shape)} do not fit the model's answers, which need {tuple(expected)}: "
                "each of the decoder's num_output_queries needs a label"
            )
        if labels.is_floating_point():
            return logits, labels
        labelled = labels != IGNORED
        return logits[labelled], labels[labelled]

    def loss_sum(self, batch: Batch) -> LossSum:
        """The summed cross-entropy, in nats, with smoothed labels and weighted classes."""
        logits, labels = self.predictions(batch)
        targets = (labels if labels.is_floating_point() else one_hot(labels, self.num_classes)).float()
        # A mixed label counts as much as its parts do. Not a matrix product: autocast would round the weights.
        weights = (targets * self.loss_weights).sum(dim=-1)
        smoothed = targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return LossSum((weights * cross_entropy(logits.float(), smoothed, reduction="none")).sum(), weights.sum())

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """The summed cross-entropy of the labels as they are; updates the metrics."""
        logits, labels = self.predictions(batch)
        metrics = cast(MetricCollection, self.metrics[stage])
        if len(labels):
            metrics.update(logits.float(), labels)
        total = cross_entropy(logits.float(), labels, reduction="sum")
        return LossSum(total, torch.tensor(len(labels), device=total.device))

    def log_metrics(self, stage: str) -> None:
        super().log_metrics(stage)
        confusion = cast(MetricCollection, self.metrics[stage])["confusion"].compute()
        if not self.trainer.sanity_checking:
            log_confusion(self.trainer, f"{stage}_confusion", confusion, self.label_names)


class LitTokenClassifier(LitClassifier):
    """Tells the class of each place of an input: of each token of a text, or each patch of an image."""

    task = "token-classification"

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        adapted = self.model.input_adapter(batch)  # type: ignore[operator]
        labels = torch.randint(self.num_classes, adapted.x.shape[:2], generator=generator)
        return labels if adapted.pad_mask is None else labels.masked_fill(adapted.pad_mask, IGNORED)

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As for all classifiers; ``labels`` are (b, m), of which only places with a label are decoded."""
        labelled = batch["labels"] != IGNORED
        return self.model(batch, positions=labelled), batch["labels"][labelled]


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f", ... {len(names)} in all" if len(names) > 3 else "")
