"""Folder of a training run: claimed by one run, reused when the run is resumed, with its configuration."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from perceiver_cli.checkpoint_files import remove_partial_files, replacing
from perceiver_cli.values import flatten

CHECKPOINTS = "checkpoints"
CONFIG = "config.yaml"

LOG_FILES = (CONFIG, "hparams.yaml", "metrics.csv", "events.out.tfevents.*")
"""Files that a run writes before its first step."""


def prepare_run_folder(trainer: Trainer, runs: Path, checkpoint: Path | None) -> list[Path]:
    """Create a new folder for a run, or reuse the folder of the run that it resumes.

    Lightning broadcasts the folder from the first process to the others.

    Args:
        trainer: the trainer, whose loggers and checkpoint callbacks have no folder yet.
        runs: folder of numbered runs, for a run without loggers.
        checkpoint: the checkpoint that the run resumes from, or None.

    Returns:
        The folders that were created.
    """
    created: list[Path] = []
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return created
    resumed = own_folder(checkpoint) if checkpoint else None
    numbered = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger | CSVLogger)]
    for logger in numbered:
        _claim_for_logger(logger, resumed, numbered, created)
    if not trainer.loggers:
        _claim_for_checkpoints(trainer, runs, resumed, created)
    for root in {runs.parent, *(Path(logger.save_dir) for logger in numbered)}:
        remove_partial_files(root)
    return created


@contextlib.contextmanager
def removed_if_unused(folders: Iterable[Path], trainer: Trainer) -> Iterator[None]:
    """Remove a run's new folders if it fails within this context before its first step.

    A folder with other files than logs and the configuration is kept.

    Args:
        folders: the folders that were created for the run.
        trainer: the trainer.
    """
    try:
        yield
    except BaseException:
        for folder in folders:
            files = [path for path in folder.rglob("*") if not path.is_dir()]
            if trainer.global_step == 0 and all(any(map(path.match, LOG_FILES)) for path in files):
                shutil.rmtree(folder, ignore_errors=True)
        raise


def _claim_for_checkpoints(trainer: Trainer, runs: Path, resumed: Path | None, created: list[Path]) -> None:
    """Set the folder of checkpoint callbacks without one to this run's folder."""
    callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath is None]
    if callbacks:
        folder = _claim(runs, resumed, created)
        for callback in callbacks:
            callback.dirpath = str(folder / CHECKPOINTS)


def _claim_for_logger(
    logger: TensorBoardLogger | CSVLogger, resumed: Path | None, loggers: Iterable[Logger], created: list[Path]
) -> None:
    """Set the version of a logger without one to this run's folder."""
    if logger._version is not None:
        return
    for other in loggers:
        if other._version is not None and other.root_dir == logger.root_dir:  # type: ignore[attr-defined]
            logger._version = other._version  # type: ignore[attr-defined]
            return
    logger._version = _claim(_root(logger), resumed, created).name


def _root(logger: TensorBoardLogger | CSVLogger) -> Path:
    """Return the folder of a logger's runs, with ``~`` and variables expanded as the logger does."""
    logger._version = "version"
    folder = Path(logger.log_dir)
    logger._version = None
    while folder.name != "version":  # a TensorBoardLogger may have a subfolder
        folder = folder.parent
    return folder.parent


def _claim(root: Path, resumed: Path | None, created: list[Path]) -> Path:
    """Return the resumed run's folder if it is in ``root``, or a new folder, created atomically and added to a list."""
    if resumed is not None and resumed.parent == root.resolve():
        return root / resumed.name
    taken = (path.name.removeprefix("version_") for path in root.glob("version_*"))
    first = max((int(number) for number in taken if number.isdecimal()), default=-1) + 1
    for number in itertools.count(first):
        folder = root / f"version_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # claimed by another run
            continue
        created.append(folder)
        return folder
    raise AssertionError("unreachable")


def own_folder(checkpoint: Path) -> Path | None:
    """Return the folder of a checkpoint's run; None outside a run, or if links lead out of the folder."""
    path = checkpoint.resolve()
    if path.parent.name != CHECKPOINTS:
        return None
    folder = path.parent.parent
    links = (each for each in folder.rglob("*") if each.is_symlink())
    return folder if all(each.resolve().is_relative_to(folder) for each in links) else None


class SaveConfig(Callback):
    """Write the run's configuration to its loggers and to a file, which ``--config`` accepts to repeat the run.

    Args:
        values: the configuration, as plain data.
    """

    def __init__(self, values: Mapping[str, Any]):
        self.values = values

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        flat = flatten(self.values)
        for logger in trainer.loggers:
            logger.log_hyperparams(flat)
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                _declare_metrics(logger, flat)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = run_folder(trainer)
        if trainer.is_global_zero and folder is not None:
            with replacing(folder / CONFIG) as file:
                file.write(yaml.safe_dump(dict(self.values), sort_keys=False).encode())


def run_folder(trainer: Trainer) -> Path | None:
    """Return the folder of a run that has started, or None if it writes no files. All processes must call this."""
    log_dir = trainer.log_dir  # a collective operation
    callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.dirpath]
    if trainer.loggers and (isinstance(trainer.loggers[0], TensorBoardLogger | CSVLogger) or not callbacks):
        return Path(log_dir or trainer.default_root_dir)
    return Path(str(callbacks[0].dirpath)).parent if callbacks else None


def _declare_metrics(logger: TensorBoardLogger, flat: Mapping[str, Any]) -> None:
    """Add the run's losses to TensorBoard's table of hyperparameters."""
    from torch.utils.tensorboard.summary import hparams

    values = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in flat.items()}
    for summary in hparams(values, {"val_loss": 0.0, "train_loss": 0.0}):
        logger.experiment._get_file_writer().add_summary(summary)
