"""What Lightning does while a model trains, so that a run can be resumed from any of its checkpoints."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn


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
