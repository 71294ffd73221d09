"""End training runs with a loss or weights that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from perceiver_registry.errors import RunError

VAL_LOSS = "val_loss"
"""Name of the validation loss, which must be finite."""

TRAINED_WEIGHTS = "current_model_state"
"""Checkpoint key of the trained weights, if ``state_dict`` is their moving average."""


class NonFiniteError(RunError):
    """The loss or the weights are NaN or infinite."""


class FiniteGuard(Callback):
    """End training if the loss or the weights are not finite, before such a state is saved.

    With one process on a CPU, each loss is checked before its gradients are computed. In other runs, this would
    synchronise the device at each step. There, the number of the first bad step is kept on the device, and read when
    metrics are logged, before each checkpoint and validation, and at the end.
    """

    def __init__(self) -> None:
        self._bad_step: Tensor | None = None
        self._ended = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bad_step, self._ended = None, False

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        good = torch.where(loss.detach().isfinite().all(), -1, trainer.global_step)
        self._bad_step = good if self._bad_step is None else torch.where(self._bad_step < 0, good, self._bad_step)
        if loss.device.type == "cpu" and trainer.world_size == 1:
            self._check_loss(trainer)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check_loss(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._check_loss(trainer)
            check_weights(trainer, pl_module, dict(pl_module.named_parameters()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = trainer.callback_metrics.get(VAL_LOSS)
        if trainer.state.fn == "fit" and not trainer.sanity_checking and loss is not None and not loss.isfinite():
            self._end(trainer, f"the validation loss is {float(loss)}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._ended:  # after the error, the last state is saved if its weights are finite
            self._check_loss(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_loss(trainer)
        check_weights(trainer, pl_module, dict(pl_module.named_parameters()))

    def _check_loss(self, trainer: Trainer) -> None:
        step = -1 if self._bad_step is None else int(self._bad_step)
        # Losses differ between processes; either all processes end or none.
        if trainer.strategy.reduce_boolean_decision(step >= 0, all=False):
            self._end(trainer, "the training loss is not finite (NaN or infinite)", step if step >= 0 else None)

    def _end(self, trainer: Trainer, problem: str, step: int | None = None) -> None:
        self._ended = True
        raise NonFiniteError(_explained(trainer, problem, step))


def check_weights(trainer: Trainer, module: LightningModule, *states: Mapping[str, Any]) -> None:
    """Check that all weights are finite. Must be called in every process.

    Args:
        trainer: the trainer, for the message.
        module: the module. Its buffers, such as masks, may be infinite.
        states: state dicts of the module.

    Raises:
        NonFiniteError: if a weight is not finite.
    """
    buffers = {name for name, _ in module.named_buffers()}
    values = [value for state in states for name, value in state.items() if name not in buffers]
    finite = [value.isfinite().all() for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    bad = bool(finite) and not bool(torch.stack([each.to(finite[0].device) for each in finite]).all())
    if trainer.strategy.reduce_boolean_decision(bad, all=False):
        raise NonFiniteError(_explained(trainer, "the weights are not finite (NaN or infinite)", None))


def check_saved_weights(trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Check that the weights of a checkpoint and their moving average are finite, before it is written.

    Raises:
        NonFiniteError: if they are not.
    """
    check_weights(trainer, module, checkpoint.get("state_dict", {}), checkpoint.get(TRAINED_WEIGHTS, {}))


def _explained(trainer: Trainer, problem: str, step: int | None) -> str:
    """Error message with the step and the likely causes."""
    causes = ["values in the data that are not finite"]
    if not trainer.precision.startswith(("32", "64", "bf16")):
        causes.insert(0, f"the range of --trainer.precision={trainer.precision} (bf16-mixed and 32-true have more)")
    rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
    if rates:
        causes.insert(0, f"too high a learning rate (--optimizer.lr, now {float(max(rates)):.3g})")
    where = f"step {trainer.global_step if step is None else step}"
    return f"{where}: {problem}; likely causes: {', or '.join(causes)}"
