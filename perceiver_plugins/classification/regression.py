"""Training of models that predict numbers with Lightning."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, l1_loss, mse_loss
from torchmetrics import MeanAbsoluteError, MetricCollection, R2Score

from perceiver_core import Batch, DecoderConfig, EncoderConfig
from perceiver_core.config import Init
from perceiver_plugins.checkpoints.random_data import num_examples
from perceiver_plugins.classification.adapters import RegressionOutputAdapter, exact_dtype
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_plugins.sdk.tasks.precision import keep_labels
from perceiver_registry import UserError

LOSSES: dict[str, Callable[..., Tensor]] = {"mse": mse_loss, "l1": l1_loss, "huber": huber_loss}


class LitRegressor(LitPerceiver):
    """Predicts numbers from an input, whatever it is.

    The loss is in units of the targets' standard deviation, so that targets of any size train alike. Logged beside it
    are, for validation and test data, the mean absolute error in the targets' own units and R2, the part of the
    targets' variance that is explained, over all targets together, both in double precision. Targets that are no
    number (NaN) are left out.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: the encoder's configuration, of any input adapter.
        decoder: the decoder's configuration, of numbers.
        loss: mean squared error, mean absolute error ("l1"), or Huber's in between.
    """

    task = "regression"
    throughput = "examples_per_second"

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
        loss: Literal["mse", "l1", "huber"] = "mse",
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
        self.loss = loss
        self.add_metrics({"mae": MeanAbsoluteError(), "r2": R2Score()})

    def setup(self, stage: str) -> None:
        super().setup(stage)
        keep_labels(self.trainer.precision_plugin)

    def check_data(self, datamodule: Any) -> None:
        """Checks that the data has as many targets as the model.

        Raises:
            UserError: if it has not.
        """
        super().check_data(datamodule)
        theirs, ours = getattr(datamodule, "num_targets", None), self.config.decoder.num_targets
        if theirs is not None and theirs != ours:
            raise UserError(f"the data has {theirs} targets an example, the model {ours}")

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return torch.randn(num_examples(batch), self.config.decoder.num_targets, generator=generator)

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return len(batch["labels"])

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """The model's answers to all targets that are given.

        Args:
            batch: what the input adapter reads, and ``labels``: (b, t), or (b) for a single target. Those that are no
                number, or IGNORED among whole numbers, are left out.

        Returns:
            Answers and targets, (p) each, in units of the targets' standard deviation from their mean; and (p) what
            such a unit is worth. In double precision.

        Raises:
            DataError: if a target is infinite.
        """
        adapter = cast(RegressionOutputAdapter, self.model.output_adapter)
        labels: Tensor = batch["labels"]
        targets = labels.to(exact_dtype(labels.device))
        if not labels.is_floating_point():
            targets = targets.masked_fill(labels == IGNORED, math.nan)
        targets = targets[:, None] if targets.dim() == 1 else targets
        answers: Tensor = self.model(batch)
        if targets.shape != answers.shape:
            raise UserError(
                f"{targets.shape[1]} targets an example, where the model has {answers.shape[1]}: labels that are mixed "
                "(mixup, cutmix) are for classes, not for numbers"
            )
        if targets.isinf().any():
            raise DataError("a target is infinite: there is no error to learn from (remove it from the data)")
        given = ~targets.isnan()
        _, unit = adapter.units(targets.device)
        std = unit.expand_as(targets)[given]
        return adapter.standardise(answers)[given], adapter.standardise(targets)[given], std

    def loss_sum(self, batch: Batch) -> LossSum:
        """The summed loss of all targets."""
        answers, targets, _ = self.predictions(batch)
        return self._loss(answers, targets)

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """The same; updates the metrics."""
        answers, targets, std = self.predictions(batch)
        metrics = cast(MetricCollection, self.metrics[stage])
        if len(targets):
            metrics["mae"].update(answers * std, targets * std)
            metrics["r2"].update(answers, targets)
        return self._loss(answers, targets)

    def _loss(self, answers: Tensor, targets: Tensor) -> LossSum:
        total = LOSSES[self.loss](answers.float(), targets.float(), reduction="sum")
        return LossSum(total, torch.tensor(len(targets), device=total.device))

    def on_validation_start(self) -> None:
        self._keep_metrics_exact("val")

    def on_test_start(self) -> None:
        self._keep_metrics_exact("test")

    def _keep_metrics_exact(self, stage: str) -> None:
        # Not earlier: a precision plugin converts the metrics with the module.
        cast(MetricCollection, self.metrics[stage]).set_dtype(exact_dtype(self.device))

    def log_metrics(self, stage: str) -> None:
        here = cast(R2Score, cast(MetricCollection, self.metrics[stage])["r2"]).total.clone()  # reduced in place
        num_targets = self.trainer.strategy.reduce(here, reduce_op="sum")
        if num_targets > 1:  # of a single target nothing is explained
            super().log_metrics(stage)
