"""The learning rate as an attribute, which Lightning's LearningRateFinder and Tuner read and set."""

from __future__ import annotations

import inspect
from typing import Any

from pytorch_lightning import LightningModule

from perceiver_plugins.sdk.tasks.optimizers import NAME, find_optimizer


class TunableLearningRate(LightningModule):
    """Mixin of a module with an ``optimizer_config``: its learning rate as the attribute ``lr``."""

    optimizer_config: dict[str, Any]

    _other_schedule = False
    """Whether the schedule sets the learning rate anew when training starts."""

    @property
    def lr(self) -> float | None:
        """The optimizer's learning rate, before any schedule; None if the optimizer has none."""
        default = inspect.signature(find_optimizer(self.optimizer_config[NAME])).parameters.get("lr")
        return self.optimizer_config.get("lr", None if default is None else default.default)

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer_config["lr"] = value
        if self._trainer is None:
            return
        # While a run is under way, its schedule continues from the new rate instead of going back to the old one.
        for group in (group for optimizer in self._trainer.optimizers for group in optimizer.param_groups):
            group["lr"] = value
            if "initial_lr" in group:
                group["initial_lr"] = value
        for config in self._trainer.lr_scheduler_configs:
            if hasattr(config.scheduler, "base_lrs"):
                config.scheduler.base_lrs = [value for _ in config.scheduler.base_lrs]
        self._other_schedule = True
