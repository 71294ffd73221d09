"""Callbacks of training: moving average, early stopping and optimizer steps in the backward pass."""

from __future__ import annotations

import contextlib
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, GradientAccumulationScheduler, WeightAveraging
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.optim.swa_utils import get_ema_multi_avg_fn

from perceiver_plugins.sdk.tasks.in_backward import MIN_SIZE, stepping_in_backward
from perceiver_registry import UserError


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights, with checkpoints that can be resumed from.

    During validation and at the end of a run, the module has the average instead of the weights. Checkpoints that are
    saved then swap the two back, which Lightning's callback does not do.

    Args:
        decay: fraction of the average that each optimizer step keeps. The average starts as the weights after the first
            step.
    """

    def __init__(self, decay: float):
        # With linear interpolation, the average of constant (frozen) weights equals them bit for bit.
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._swapped = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: ``on_fit_end`` swaps, which is also called if no step is left to train."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped and self._average_model is not None:
            average, weights = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint |= {"state_dict": average, "current_model_state": weights}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:  # without training, Lightning would warn
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class Patience(EarlyStopping):
    """Early stopping. A resumed run has its current patience, not that of its checkpoint."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})


class OptimizerInBackward(Callback):
    """Step inside the backward pass (:func:`~perceiver_plugins.sdk.tasks.in_backward.stepping_in_backward`).

    Weights and checkpoints are the same as without it; a run may be resumed with or without it.

    Args:
        min_size: weights with fewer elements are updated after the backward pass.
    """

    def __init__(self, min_size: int = MIN_SIZE):
        self.min_size = min_size
        self._stepping = contextlib.ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that nothing in this run needs all gradients at once, or those of several batches.

        Raises:
            UserError: if something does.
        """
        obstacle = _obstacle(trainer, pl_module) if stage == "fit" else None
        if obstacle is not None:
            raise UserError(f"--optimizer.in_backward=true: cannot be combined with {obstacle}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            self._stepping.enter_context(stepping_in_backward(optimizer, self.min_size))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stepping.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stepping.close()


def _obstacle(trainer: Trainer, module: LightningModule) -> str | None:
    """Description of what needs all gradients at once, with a remedy. None: nothing does."""
    if trainer.gradient_clip_val:
        return f"--trainer.gradient_clip_val={trainer.gradient_clip_val} (set it to null)"
    if trainer.accumulate_grad_batches != 1:
        return f"--trainer.accumulate_grad_batches={trainer.accumulate_grad_batches} (set it to 1)"
    if trainer.precision == "16-mixed":
        return "--trainer.precision=16-mixed, which scales gradients (choose bf16-mixed or 32-true)"
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        return f"--trainer.strategy={type(trainer.strategy).__name__} (train on one device: --trainer.devices=1)"
    for owner in (module, *trainer.callbacks):  # type: ignore[attr-defined]
        if isinstance(owner, GradientAccumulationScheduler):
            return "--trainer.callbacks=GradientAccumulationScheduler (leave it out)"
        for hook in ("on_after_backward", "on_before_optimizer_step"):
            if is_overridden(hook, owner):
                return f"{type(owner).__name__}.{hook}, which would find no gradients (leave it out)"
    return None
