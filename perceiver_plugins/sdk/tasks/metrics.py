"""Metrics of Lightning modules, logged after each validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from pytorch_lightning import LightningModule
from torch import nn
from torchmetrics import Metric, MetricCollection

STAGES = ("val", "test")


class EvaluationMetrics(LightningModule):
    """Mixin of Lightning modules with metrics that are logged and reset after each validation and test.

    ``__init__`` calls :meth:`add_metrics`. An evaluation step updates ``self.metrics[stage][name]``; the stage is "val"
    or "test".
    """

    metrics: nn.ModuleDict
    """Metrics of each stage by the names in :meth:`add_metrics`."""

    progress_metrics: ClassVar[tuple[str, ...]] = ()
    """Names of the metrics in the progress bar. Empty: all."""

    def add_metrics(self, metrics: Mapping[str, Metric]) -> None:
        """Add metrics, logged as ``val_{name}`` and ``test_{name}``.

        Args:
            metrics: metrics by name; they are copied for each stage.
        """
        # A compute group shares state among metrics that are equal on the first batch, even if by coincidence.
        collection = MetricCollection(dict(metrics), compute_groups=False)
        self.metrics = nn.ModuleDict({stage: collection.clone(prefix=f"{stage}_") for stage in STAGES})

    def log_metrics(self, stage: str) -> None:
        """Log the metrics of a stage that are single numbers. A subclass may log others.

        Args:
            stage: "val" or "test".
        """
        for name, value in self._metrics_of(stage).compute().items():
            if value.numel() == 1:
                shown = not self.progress_metrics or name.removeprefix(f"{stage}_") in self.progress_metrics
                self.log(name, value, prog_bar=shown, sync_dist=True)  # all processes have the same value

    def on_validation_epoch_end(self) -> None:
        self._end_epoch("val")

    def on_test_epoch_end(self) -> None:
        self._end_epoch("test")

    def _end_epoch(self, stage: str) -> None:
        metrics = getattr(self, "metrics", {})
        # A subclass may have another attribute of this name, and log its metrics itself.
        if stage in metrics and isinstance(metrics[stage], MetricCollection):
            self.log_metrics(stage)
            metrics[stage].reset()

    def _metrics_of(self, stage: str) -> MetricCollection:
        return cast(MetricCollection, self.metrics[stage])
