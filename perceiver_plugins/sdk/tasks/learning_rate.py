"""Learning rate attribute for Lightning's LearningRateFinder and Tuner."""

from __future__ import annotations

import inspect
from typing import Any

from pytorch_lightning import LightningModule

from perceiver_plugins.sdk.tasks.optimizers import NAME, find_optimizer
from perceiver_plugins.sdk.tasks.parameter_groups import group_rates


class TunableLearningRate(LightningModule):
    """Mixin that adds the attribute ``lr`` to Lightning modules with an ``optimizer_config``."""

    optimizer_config: dict[str, Any]

    _reset_rates = False
    """Set the learning rates from the schedule, or from their initial values, when training starts."""

    @property
    def lr(self) -> float | None:
        """Learning rate of the optimizer, before scaling by the schedule. None: the optimizer has no learning rate."""
        default = inspect.signature(find_optimizer(self.optimizer_config[NAME])).parameters.get("lr")
        return self.optimizer_config.get("lr", None if default is None else default.default)

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer_config["lr"] = value
        if self._trainer is None:
            return
        # During a run, the schedule continues with the new rate.
        groups = [group for optimizer in self._trainer.optimizers for group in optimizer.param_groups]
        rates = group_rates(groups, value)
        for group, rate in zip(groups, rates, strict=True):
            # LearningRateFinder then sets one rate for all groups; training starts with their initial ones.
            group |= {"lr": rate, "initial_lr": rate}
        for config in self._trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "base_lrs"):
                config.scheduler.base_lrs = list(rates)
        self._reset_rates = True
