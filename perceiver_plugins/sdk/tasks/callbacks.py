"""What Lightning does while a model trains, so that a run can be resumed from any of its checkpoints."""

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
    """Lightning's exponential moving average of the weights, told apart from them in every checkpoint.

    While validation runs, and once a run has ended, the module holds the average in the place of its weights. A
    checkpoint that is saved then must not take the one for the other, or the run could not be resumed from it.

    Args:
        decay: the part of the average that is kept at each optimizer step. It starts as the weights after the first.
    """

    def __init__(self, decay: float):
        # Linear interpolation: weights that stay as they are, such as frozen ones, are their own average to the bit.
        super().__init__(multi_avg_fn=get_ema_multi_avg_fn(decay))
        self._swapped = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._swapped = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._swapped = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leaves it to the end of the run, which comes even where there is nothing left to train."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.on_validation_epoch_start(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if self._swapped and self._average_model is not None:
            average, weights = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint |= {"state_dict": average, "current_model_state": weights}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._average_model is not None:  # otherwise nothing is trained, and Lightning warns that it is not
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class Patience(EarlyStopping):
    """Lightning's early stopping; a run that is resumed has the patience that it is given then."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})


class OptimizerInBackward(Callback):
    """Lets the optimizer update each weight inside the backward pass, and frees its gradient at once.

    The weights become the same as without it. Checkpoints are the same too: a run may be resumed with or without it.
    What needs all gradients at once, or those of several batches, is refused before training starts.

    Args:
        min_size: weights with fewer elements wait for the ordinary step: their gradients take no room.
    """

    def __init__(self, min_size: int = MIN_SIZE):
        self.min_size = min_size
        self._stepping = contextlib.ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks that nothing in this run needs all gradients at once.

        Raises:
            UserError: if something does; the message names its flag.
        """
        obstacle = _obstacle(trainer, pl_module) if stage == "fit" else None
        if obstacle is not None:
            raise UserError(f"--optimizer.in_backward=true frees each gradient at once and does not go with {obstacle}")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for optimizer in trainer.optimizers:
            self._stepping.enter_context(stepping_in_backward(optimizer, self.min_size))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stepping.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stepping.close()


def _obstacle(trainer: Trainer, module: LightningModule) -> str | None:
    """What in a run needs all gradients at once, and what to do about it; None if nothing does."""
    if trainer.gradient_clip_val:
        return f"--trainer.gradient_clip_val={trainer.gradient_clip_val}: set it to null"
    if trainer.accumulate_grad_batches != 1:
        return f"--trainer.accumulate_grad_batches={trainer.accumulate_grad_batches}: set it to 1"
    if trainer.precision == "16-mixed":
        return "--trainer.precision=16-mixed, which scales gradients: bf16-mixed or 32-true go with it"
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        return f"--trainer.strategy ({type(trainer.strategy).__name__}): train on one device, --trainer.devices=1"
    for owner in (module, *trainer.callbacks):  # type: ignore[attr-defined]
        if isinstance(owner, GradientAccumulationScheduler):
            return "--trainer.callbacks=GradientAccumulationScheduler: leave it out"
        for hook in ("on_after_backward", "on_before_optimizer_step"):
            if is_overridden(hook, owner):
                return f"{type(owner).__name__}.{hook}, which would find no gradients: leave it out"
    return None
