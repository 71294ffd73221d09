"""Lightning module for regression from any input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss, l1_loss, mse_loss
from torchmetrics import MeanAbsoluteError, MetricCollection, R2Score

from perceiver_core import Batch, DecoderConfig, EncoderConfig
from perceiver_core.config import Init
from perceiver_plugins.checkpoints.random_data import num_examples
from perceiver_plugins.classification.adapters import RegressionOutputAdapter, exact_dtype
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.errors import DataError, list_first
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_plugins.sdk.tasks.metrics import STAGES
from perceiver_plugins.sdk.tasks.precision import keep_labels
from perceiver_registry import UserError

MAX_MEASURED_TARGETS = 50
"""Most targets that get separate metrics. Arbitrary."""

LOSSES: dict[str, Callable[..., Tensor]] = {"mse": mse_loss, "l1": l1_loss, "huber": huber_loss}


class LitRegressor(LitPerceiver):
    """Regressor of any input.

    The loss is computed on standardised targets, so that it does not depend on their units. For validation and test
    data, it also logs the mean absolute error in the targets' units and R2 (the coefficient of determination) over all
    targets and, if there are 2 to 50, for each of them (``val_mae_NAME``), in double precision. Missing targets (NaN)
    are ignored.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: encoder configuration of any input adapter.
        decoder: decoder configuration with targets.
        loss: mean squared error ("mse"), mean absolute error ("l1") or Huber loss ("huber").
    """

    task = "regression"
    throughput = "examples_per_second"
    progress_metrics = ("mae", "r2")

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
        number = self.config.decoder.num_targets
        if 1 < number <= MAX_MEASURED_TARGETS:
            each = {stage: nn.ModuleList(target_metrics() for _ in range(number)) for stage in STAGES}
            self.target_metrics = nn.ModuleDict(each)

    @property
    def target_names(self) -> list[str]:
        """Names of the targets; by default, "target 1" and so on."""
        decoder = self.config.decoder
        return decoder.target_names or [f"target {number}" for number in range(1, decoder.num_targets + 1)]

    def setup(self, stage: str) -> None:
        super().setup(stage)
        keep_labels(self.trainer.precision_plugin)

    def check_data(self, datamodule: Any) -> None:
        """Check that the data has as many targets as the model, and named targets in the same order.

        Raises:
            UserError: if number or order differ.
        """
        super().check_data(datamodule)
        data_targets, model_targets = getattr(datamodule, "num_targets", None), self.config.decoder.num_targets
        if data_targets is not None and data_targets != model_targets:
            raise UserError(f"the data has {data_targets} targets per example, the model {model_targets}")
        names = list(getattr(datamodule, "target_names", None) or [])
        if names != self.target_names and sorted(names) == sorted(self.target_names):
            raise UserError(
                f"the targets of the data ({list_first(names)}) are in another order than the model's "
                f"({list_first(self.target_names)})"
            )

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return torch.randn(num_examples(batch), self.config.decoder.num_targets, generator=generator)

    def num_tokens(self, batch: Batch) -> Tensor | int:
        return len(batch["labels"])

    def predictions(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Predict all targets that are not missing.

        Args:
            batch: the input adapter's entries, and ``labels``: (b, t), or (b) for a single target. Missing targets
                are NaN, or IGNORED in integer labels.

        Returns:
            Standardised predictions, standardised targets, and the standard deviation of each target: one number per
            target that is not missing, in double precision.

        Raises:
            UserError: if the number of targets is not the model's.
            DataError: if a target is infinite.
        """
        adapter = cast(RegressionOutputAdapter, self.model.output_adapter)
        targets = self._targets(batch)
        predictions: Tensor = self.model(batch)
        if targets.shape != predictions.shape:
            raise UserError(
                f"labels: {targets.shape[1]} targets per example, the model has {predictions.shape[1]} (mixup and "
                "cutmix require class labels)"
            )
        if targets.isinf().any():
            raise DataError("labels: a target is infinite (remove it from the data)")
        known = ~targets.isnan()
        _, std = adapter.statistics(targets.device)
        std = std.expand_as(targets)[known]
        return adapter.standardise(predictions)[known], adapter.standardise(targets)[known], std

    @staticmethod
    def _targets(batch: Batch) -> Tensor:
        """Return the targets (b, t) in double precision, NaN where missing."""
        labels: Tensor = batch["labels"]
        targets = labels.to(exact_dtype(labels.device))
        if not labels.is_floating_point():
            targets = targets.masked_fill(labels == IGNORED, math.nan)
        return targets[:, None] if targets.dim() == 1 else targets

    def loss_sum(self, batch: Batch) -> LossSum:
        """Sum the loss of all targets."""
        predictions, targets, _ = self.predictions(batch)
        return self._loss(predictions, targets)

    def evaluate(self, batch: Batch, stage: str) -> LossSum:
        """Sum the loss of all targets; update the metrics."""
        predictions, targets, std = self.predictions(batch)
        if len(targets):
            update_metrics(self._metrics_of(stage), predictions, targets, std)
        _, columns = (~self._targets(batch).isnan()).nonzero(as_tuple=True)
        for column, metrics in enumerate(self._target_metrics_of(stage)):
            chosen = columns == column
            if chosen.any():
                update_metrics(metrics, predictions[chosen], targets[chosen], std[chosen])
        return self._loss(predictions, targets)

    def _loss(self, predictions: Tensor, targets: Tensor) -> LossSum:
        total = LOSSES[self.loss](predictions.float(), targets.float(), reduction="sum")
        return LossSum(total, torch.tensor(len(targets), device=total.device))

    def on_validation_start(self) -> None:
        self._keep_metrics_exact("val")

    def on_test_start(self) -> None:
        self._keep_metrics_exact("test")

    def _keep_metrics_exact(self, stage: str) -> None:
        # Not in setup: precision plugins convert the metrics with the module after it.
        for metrics in (self._metrics_of(stage), *self._target_metrics_of(stage)):
            metrics.set_dtype(exact_dtype(self.device))

    def _target_metrics_of(self, stage: str) -> list[MetricCollection]:
        """Return the separate metrics of each target, if any."""
        if not hasattr(self, "target_metrics"):
            return []
        return [cast(MetricCollection, metrics) for metrics in cast(nn.ModuleList, self.target_metrics[stage])]

    def log_metrics(self, stage: str) -> None:
        if self._is_defined(self._metrics_of(stage)):
            super().log_metrics(stage)
        for name, metrics in zip(self.target_names, self._target_metrics_of(stage), strict=False):
            if self._is_defined(metrics):
                values = metrics.compute()
                self.log_dict({f"{stage}_{key}_{name}": value for key, value in values.items()}, sync_dist=True)
            metrics.reset()

    def _is_defined(self, metrics: MetricCollection) -> bool:
        """Return whether all processes together have at least two numbers, as R2 needs."""
        count = cast(R2Score, metrics["r2"]).total.clone()  # reduce changes it
        return bool(self.trainer.strategy.reduce(count, reduce_op="sum") > 1)


def target_metrics() -> MetricCollection:
    """Create the mean absolute error and R2."""
    return MetricCollection({"mae": MeanAbsoluteError(), "r2": R2Score()}, compute_groups=False)


def update_metrics(metrics: MetricCollection, predictions: Tensor, targets: Tensor, std: Tensor) -> None:
    """Update metrics with standardised predictions and targets (n); ``std`` (n) scales errors to the targets' units."""
    metrics["mae"].update(predictions * std, targets * std)
    metrics["r2"].update(predictions, targets)
