"""Progress of training and evaluation as lines on standard error, without a terminal for a progress bar."""

from __future__ import annotations

import math
import sys
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, Timer
from rich.console import Console

from perceiver_registry.progress import ProgressLines


def has_terminal() -> bool:
    """Return whether standard output is a terminal, on which Lightning draws its progress bar."""
    return Console().is_terminal


class LogProgress(ProgressBar):
    """Print step, metrics, rate and remaining time at intervals."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._training, self._evaluation = ProgressLines("steps"), ProgressLines("batches")

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training.restart(trainer.global_step)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if not self._shown(trainer):
            return
        line = self._training.line(trainer.global_step, total_steps(trainer), _time_left(trainer))
        if line is not None:
            self._print(f"step {line}, epoch {trainer.current_epoch}{_metrics(trainer)}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluation.restart(0)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not trainer.sanity_checking:
            self._report_evaluation(trainer, "validation", batch_idx, trainer.num_val_batches[dataloader_idx])

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._evaluation.restart(0)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._report_evaluation(trainer, "test", batch_idx, trainer.num_test_batches[dataloader_idx])

    def _report_evaluation(self, trainer: Trainer, stage: str, batch_idx: int, total: float) -> None:
        line = self._evaluation.line(batch_idx + 1, _finite(total)) if self._shown(trainer) else None
        if line is not None:
            self._print(f"{stage} batch {line}")

    def _shown(self, trainer: Trainer) -> bool:
        return self._enabled and trainer.is_global_zero

    @staticmethod
    def _print(line: str) -> None:
        print(f"perceiver: {line}", file=sys.stderr, flush=True)


def total_steps(trainer: Trainer) -> int | None:
    """Return the optimizer step at which training ends, or None if it is unknown.

    Unlike the trainer's ``estimated_stepping_batches`` this loads no data.
    """
    limits = [trainer.max_steps] if trainer.max_steps not in (None, -1) else []
    batches = _finite(trainer.num_training_batches)
    if batches is not None and trainer.max_epochs not in (None, -1):
        limits.append(math.ceil(batches / trainer.accumulate_grad_batches) * trainer.max_epochs)
    return min(limits, default=None)


def _finite(number: float) -> int | None:
    return int(number) if math.isfinite(number) else None


def _time_left(trainer: Trainer) -> float | None:
    """Return the seconds left until ``max_time``, or None without this limit."""
    left = [callback.time_remaining() for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    return min((max(0.0, seconds) for seconds in left if seconds is not None), default=None)


def _metrics(trainer: Trainer) -> str:
    metrics = {name: float(value) for name, value in trainer.progress_bar_metrics.items()}
    if trainer.optimizers:
        metrics["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
    return "".join(f", {name} {value:.4g}" for name, value in metrics.items())
