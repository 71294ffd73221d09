"""Report at the end of training: results, checkpoints and the commands that use them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from perceiver_cli.checkpoints import LatestValidated


def report(
    trainer: Trainer, last: Path | None, again: str = "", plugins: str = "", resumed_step: int | None = None
) -> Iterator[str]:
    """Compose the lines of the report.

    Args:
        trainer: the trainer, after training.
        last: path of the latest checkpoint. None: checkpoints are disabled.
        again: common flags of a command that resumes the run, each after a space.
        plugins: common flags of a command that uses its model, each after a space.
        resumed_step: step of the checkpoint that the run resumed from. None: it is a new run.
    """
    steps, limits = trainer.global_step, reached_limits(trainer)
    if limits and steps == resumed_step:
        named = " and ".join(f"--trainer.{name}={value}" for name, value in limits.items())
        raised = "it" if len(limits) == 1 else "them"
        yield f"\n{named}: reached by the checkpoint; no step was trained (raise {raised})"
    else:
        yield f"\nTrained for {steps} {'step' if steps == 1 else 'steps'}."
    best = best_callbacks(trainer)
    yield from _results(trainer, best, last)
    if last is None:
        return
    if not last.exists():
        yield "No checkpoint was saved."
        return
    used = best[0].best_model_path if best else last
    yield f"Latest state: {last}"
    yield f"\nPredict:    perceiver predict {shlex.quote(f'--ckpt_path={used}')}{plugins} ..."
    raised = "".join(f" --trainer.{name}=N" for name in limits)
    yield f"Resume:     perceiver fit {shlex.quote(f'--ckpt_path={last}')}{again}{raised}"
    yield from (f"Logs:       {logs}" for logs in _logs(trainer))


def reached_limits(trainer: Trainer) -> dict[str, int]:
    """Return the limits of the trainer that ended training and must be raised to train on, by option."""
    max_epochs = trainer.max_epochs
    limits = {"max_steps": trainer.max_steps} if 0 <= trainer.max_steps <= trainer.global_step else {}
    # Lightning also counts an epoch that max_steps ended before its last batch.
    is_finished = not limits or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
    if max_epochs is not None and 0 <= max_epochs <= trainer.current_epoch and is_finished:
        limits["max_epochs"] = max_epochs
    return limits


def _results(trainer: Trainer, best: Sequence[Any], last: Path | None) -> Iterator[str]:
    """Yield lines with the latest and the best validation metrics."""
    latest = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val_")}
    if latest:
        yield f"Last validation: {', '.join(f'{name} {_number(value)}' for name, value in sorted(latest.items()))}"
    elif last is not None and not best:
        yield "No validation was run, so best.ckpt was not saved."
    for callback in best:
        chosen = "Latest" if isinstance(callback, LatestValidated) else "Best"
        yield f"{chosen} {_monitored(callback)} {_number(callback.best_model_score)}: {callback.best_model_path}"


def _logs(trainer: Trainer) -> Iterator[str]:
    """Yield commands that show the run's logs, or their files."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            yield f"tensorboard {shlex.quote(f'--logdir={logger.save_dir}')}"
        elif isinstance(logger, CSVLogger):
            yield str(Path(logger.log_dir, logger.experiment.NAME_METRICS_FILE))


def best_callbacks(trainer: Trainer) -> list[Any]:
    """Return the trainer's callbacks that have saved a best checkpoint."""
    saving = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    return [each for each in saving if each.best_model_score is not None and Path(each.best_model_path).exists()]


def _monitored(callback: ModelCheckpoint) -> str:
    return "validation loss" if callback.monitor == "val_loss" else str(callback.monitor)


def _number(value: Any) -> str:
    """Format a metric with four decimals or, below 0.001, with four significant digits."""
    number = float(value)
    return f"{number:.4f}" if number == 0 or abs(number) >= 0.001 else f"{number:.4g}"
