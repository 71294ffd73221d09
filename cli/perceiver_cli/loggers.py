"""Logging of ``perceiver fit``: resumed runs continue their logs, and short runs log often enough."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from perceiver_cli.checkpoint_files import replacing_text
from perceiver_cli.notes import note
from perceiver_cli.run_folder import own_folder
from perceiver_registry import UserError
from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.extras import MissingRequirement, find_requirement

MIN_LOGGED_STEPS = 10
"""Steps of a short run that are logged by default. Arbitrary: enough for a curve."""

TENSORBOARD = ("tensorboard", "tensorboardX")
"""Packages of which TensorBoardLogger needs one."""


def default_logger(folder: Path, task: str) -> TensorBoardLogger | CSVLogger:
    """Create the logger of a run that configures none: for TensorBoard if it is installed, otherwise CSV files.

    Args:
        folder: folder of the logs of all tasks.
        task: name of the run's task.
    """
    if any(map(importlib.util.find_spec, TENSORBOARD)):
        return TensorBoardLogger(str(folder), name=task, default_hp_metric=False)
    missing = find_requirement("tensorboard") or MissingRequirement("tensorboard", "tensorboard")
    note(f"TensorBoard: {missing}; metrics are logged to CSV files instead")
    return CSVLogger(str(folder), name=task)


def continue_logs(logger: Any, checkpoint: Checkpoint | None) -> Any:
    """Let a resumed run continue the logs in its own folder from the checkpoint's step.

    Args:
        logger: logger or list of loggers of the trainer; True and False are returned unchanged.
        checkpoint: checkpoint to resume from, read from ``RUN/checkpoints/NAME.ckpt``. None: the run is new.

    Returns:
        The logger or loggers to use.
    """
    if checkpoint is None or isinstance(logger, bool):
        return logger
    if isinstance(logger, list | tuple):
        return [continue_logs(each, checkpoint) for each in logger]
    folder = own_folder(checkpoint.path)
    if folder and isinstance(logger, TensorBoardLogger | CSVLogger) and _is_log_folder(logger, folder):
        return _continued(logger, folder, checkpoint.content["global_step"])
    return logger


def _is_log_folder(logger: TensorBoardLogger | CSVLogger, folder: Path) -> bool:
    """Return whether a logger writes into a run's folder, or into a new one next to it."""
    if logger._version is None:
        return folder.parent == Path(logger.root_dir).resolve()
    return folder == Path(logger.log_dir).resolve()


def _continued(logger: TensorBoardLogger | CSVLogger, folder: Path, step: int) -> TensorBoardLogger | CSVLogger:
    if isinstance(logger, TensorBoardLogger):
        logger._version = folder.name
        logger._kwargs["purge_step"] = step  # hides entries after the checkpoint
        return logger
    if type(logger) is not CSVLogger:  # a subclass may use another file format
        logger._version = folder.name
        return logger
    return ContinuedCSVLogger(
        step,
        save_dir=logger.save_dir,
        name=logger.name,
        version=folder.name,
        prefix=logger._prefix,
        flush_logs_every_n_steps=logger._flush_logs_every_n_steps,
    )


class ContinuedCSVLogger(CSVLogger):
    """CSVLogger that keeps the rows of an existing file up to a step. Lightning's own deletes the file.

    Args:
        first_step: step at which the run continues. Rows from this step on are dropped: they are logged again.
        options: arguments of ``CSVLogger``.
    """

    def __init__(self, first_step: int, **options: Any):
        super().__init__(**options)
        self.first_step = first_step

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            self._experiment = _ContinuedWriter(self.log_dir, self.first_step)
        return self._experiment  # type: ignore[return-value]


class _ContinuedWriter(ExperimentWriter):
    def __init__(self, log_dir: str, first_step: int) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if path.exists():
            self.metrics_keys = _drop_rows(path, first_step)

    def _check_log_dir_exists(self) -> None:
        """Skip the base class's deletion of the file."""


def _drop_rows(path: Path, first_step: int) -> list[str]:
    """Drop the rows of a metrics file from a step on, and return its columns."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            # The last row of a killed run may be truncated.
            rows = [row for row in reader if None not in row.values() and (row.get("step") or "").isdecimal()]
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a metrics file of an earlier run (move it away)") from error
    if columns and "step" not in columns:
        raise UserError(f"{path}: not a metrics file of an earlier run: no column 'step' (move it away)")
    with replacing_text(path) as file:
        writer = csv.DictWriter(file, fieldnames=columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(row for row in rows if int(row["step"]) < first_step)
    return columns


class LogInterval(Callback):
    """Logging interval of short runs: fewer steps than Lightning's default of 50."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        steps = trainer.estimated_stepping_batches
        if 0 < steps < float("inf"):
            interval = max(1, int(steps) // MIN_LOGGED_STEPS)
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, interval)  # type: ignore[attr-defined]
