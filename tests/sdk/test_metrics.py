"""Metrics of evaluation, that a module adds and updates, are logged and reset."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from perceiver_plugins.sdk.tasks.metrics import EvaluationMetrics

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*MulticlassConfusionMatrix.*")


class Counter(EvaluationMetrics):
    """Measures the numbers that it is given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        confusion = MulticlassConfusionMatrix(2)  # not a single number, so that it is not logged
        self.add_metrics({"mean": MeanMetric(), "largest": MaxMetric(), "confusion": confusion})

    def step(self, batch, stage):
        for name in ("mean", "largest"):
            self.metrics[stage][name].update(batch)

    def training_step(self, batch, batch_idx):
        return (self.weight * batch).sum()

    def validation_step(self, batch, batch_idx):
        self.step(batch, "val")

    def test_step(self, batch, batch_idx):
        self.step(batch, "test")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(*numbers):
    return DataLoader(torch.tensor(numbers), batch_size=2)


def test_metrics_of_each_stage_are_logged_for_one_epoch(quiet_trainer):
    module = Counter()
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(module, loader(1.0, 2.0, 6.0), loader(4.0, 6.0))
    logged = {name: value.item() for name, value in trainer.logged_metrics.items()}
    assert logged == {"val_mean": 5, "val_largest": 6}
    trainer.validate(module, loader(1.0), verbose=False)  # nothing is left of the epoch before
    assert trainer.logged_metrics == {"val_mean": 1, "val_largest": 1}
    trainer.test(module, loader(7.0), verbose=False)
    assert trainer.logged_metrics == {"test_mean": 7, "test_largest": 7}


def test_the_progress_bar_shows_all_metrics_or_those_that_are_named(quiet_trainer, monkeypatch):
    trainer = quiet_trainer()
    trainer.validate(Counter(), loader(1.0), verbose=False)
    assert {"val_mean", "val_largest"} <= trainer.progress_bar_metrics.keys()
    monkeypatch.setattr(Counter, "progress_metrics", ("largest",))
    trainer = quiet_trainer()
    trainer.validate(Counter(), loader(1.0), verbose=False)
    assert "val_largest" in trainer.progress_bar_metrics
    assert "val_mean" not in trainer.progress_bar_metrics


def test_metrics_are_no_part_of_checkpoints():
    assert [*Counter().state_dict()] == ["weight"]


class Own(Counter):
    """A module with metrics of its own kind."""

    def __init__(self):
        super().__init__()
        self.metrics = nn.ModuleDict({"val": MeanMetric()})

    def validation_step(self, batch, batch_idx):
        self.metrics["val"].update(batch)
        self.log("own", self.metrics["val"])


def test_metrics_of_another_kind_are_left_alone(quiet_trainer):
    trainer = quiet_trainer()
    trainer.validate(Own(), loader(1.0, 3.0), verbose=False)
    assert trainer.logged_metrics == {"own": 2}
