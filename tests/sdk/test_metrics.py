"""Evaluation metrics: logged and reset after each stage."""

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
    """Module with metrics of the numbers in its batches."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        confusion = MulticlassConfusionMatrix(2)  # not a single number: not logged
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


def test_metrics_are_logged_and_reset_for_each_stage(quiet_trainer):
    module = Counter()
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(module, loader(1.0, 2.0, 6.0), loader(4.0, 6.0))
    logged = {name: value.item() for name, value in trainer.logged_metrics.items()}
    assert logged == {"val_mean": 5, "val_largest": 6}
    trainer.validate(module, loader(1.0), verbose=False)  # metrics of the previous epoch are reset
    assert trainer.logged_metrics == {"val_mean": 1, "val_largest": 1}
    trainer.test(module, loader(7.0), verbose=False)
    assert trainer.logged_metrics == {"test_mean": 7, "test_largest": 7}


def test_progress_bar_shows_all_or_selected_metrics(quiet_trainer, monkeypatch):
    trainer = quiet_trainer()
    trainer.validate(Counter(), loader(1.0), verbose=False)
    assert {"val_mean", "val_largest"} <= trainer.progress_bar_metrics.keys()
    monkeypatch.setattr(Counter, "progress_metrics", ("largest",))
    trainer = quiet_trainer()
    trainer.validate(Counter(), loader(1.0), verbose=False)
    assert "val_largest" in trainer.progress_bar_metrics
    assert "val_mean" not in trainer.progress_bar_metrics


def test_checkpoints_do_not_contain_metrics():
    assert [*Counter().state_dict()] == ["weight"]


class Own(Counter):
    """Module with an attribute ``metrics`` of another type."""

    def __init__(self):
        super().__init__()
        self.metrics = nn.ModuleDict({"val": MeanMetric()})

    def validation_step(self, batch, batch_idx):
        self.metrics["val"].update(batch)
        self.log("own", self.metrics["val"])


def test_attributes_of_another_type_are_ignored(quiet_trainer):
    trainer = quiet_trainer()
    trainer.validate(Own(), loader(1.0, 3.0), verbose=False)
    assert trainer.logged_metrics == {"own": 2}
