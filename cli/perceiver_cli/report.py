"""Report at the end of training: results, checkpoints and the commands that use them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger


def report(trainer: Trainer, last: Path | None, again: str = "", plugins: str = "") -> Iterator[str]:
    """Compose the lines of the report.

    Args:
        trainer: the trainer, after training.
        last: path of the latest checkpoint. None: checkpoints are disabled.
        again: common flags of a command that resumes the run, each after a space.
        plugins: common flags of a command that uses its model, each after a space.
    """
    steps = trainer.global_step
    yield f"\nTrained for {steps} {'step' if steps == 1 else 'steps'}."
    best: list[Any] = [callback for callback in trainer.checkpoint_callbacks if _has_best(callback)]
    yield from _results(trainer, best, last)
    if last is None:
        return
    if not last.exists():
        yield "No checkpoint was saved."
        return
    used = best[0].best_model_path if best else last
    yield f"Latest state: {last}"
    yield f"\nPredict:    perceiver predict {shlex.quote(f'--ckpt_path={used}')}{plugins} ..."
    yield f"Resume:     perceiver fit {shlex.quote(f'--ckpt_path={last}')}{again} --trainer.max_steps=N"
    yield from (f"Logs:       {logs}" for logs in _logs(trainer))


def _results(trainer: Trainer, best: Sequence[Any], last: Path | None) -> Iterator[str]:
    """Yield lines with the latest and the best validation metrics."""
    latest = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
    if latest:
        yield f"Last validation: {', '.join(f'{name} {_number(value)}' for name, value in sorted(latest.items()))}"
    elif last is not None:
        yield "No validation was run, so best.ckpt was not saved."
    for callback in best:
        yield f"Best {_monitored(callback)} {_number(callback.best_model_score)}: {callback.best_model_path}"


def _logs(trainer: Trainer) -> Iterator[str]:
    """Yield commands that show the run's logs, or their files."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            yield f"tensorboard {shlex.quote(f'--logdir={logger.save_dir}')}"
        elif isinstance(logger, CSVLogger):
            yield str(Path(logger.log_dir, logger.experiment.NAME_METRICS_FILE))


def _has_best(callback: Any) -> bool:
    scored = isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None
    return scored and Path(callback.best_model_path).exists()


def _monitored(callback: ModelCheckpoint) -> str:
    return "validation loss" if callback.monitor == "val_loss" else str(callback.monitor)


def _number(value: Any) -> str:
    """Format a metric with four decimals or, below 0.001, with four significant digits."""
    number = float(value)
    return f"{number:.4f}" if number == 0 or abs(number) >= 0.001 else f"{number:.4g}"
