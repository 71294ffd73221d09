"""Creation of Lightning's trainer for a run, with its options as objects and the callbacks of all runs."""

from __future__ import annotations

import copy
import traceback
from argparse import ArgumentError
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, ModelSummary, ProgressBar
from pytorch_lightning.plugins import Precision
from pytorch_lightning.plugins.io import AsyncCheckpointIO, CheckpointIO
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from perceiver_cli.checkpoint_files import AtomicCheckpointIO
from perceiver_cli.checkpoints import LastCheckpoint, best_checkpoint
from perceiver_cli.foreign_paths import RUNS
from perceiver_cli.library_errors import missing_package
from perceiver_cli.loggers import LogInterval, continue_logs, default_logger
from perceiver_cli.model_summary import ParameterSummary
from perceiver_cli.progress import LogProgress, has_terminal
from perceiver_cli.restored_state import RestoredState
from perceiver_cli.run_config import Run
from perceiver_cli.run_folder import SaveConfig, prepare_run_folder
from perceiver_cli.tuning import with_found_values
from perceiver_cli.values import Values
from perceiver_registry import UserError
from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.errors import surface_own_fault

CREATION_ERRORS = (ValueError, TypeError, MisconfigurationException, ArgumentError)
"""Errors of constructors about their arguments."""


def create_trainer(command: str, values: Values, chosen: Run, saved: Values) -> tuple[Trainer, list[Path]]:
    """Create the trainer of a run and, for training, prepare the run's folder.

    Args:
        command: "fit", "validate" or "test".
        values: the values of the run.
        chosen: the run.
        saved: the values to save as the run's configuration.

    Returns:
        The trainer, and the folders that were created for the run.

    Raises:
        UserError: if the trainer's options are invalid.
    """
    options = _create_options(values["trainer"])
    if options["devices"] in (-1, "-1"):
        options["devices"] = "auto"  # also selects all devices, but is valid on a CPU
    if isinstance(options["val_check_interval"], int) and options["check_val_every_n_epoch"] == 1:
        options["check_val_every_n_epoch"] = None  # count steps across epochs
    options["callbacks"] = _as_list(options["callbacks"])
    options["callbacks"] += _progress(options)
    options["plugins"] = _with_checkpoint_io(_as_list(options["plugins"]), chosen.loaded)
    chosen_by_plugin = any(isinstance(plugin, Precision) for plugin in options["plugins"])
    if chosen_by_plugin and options["precision"] == default_precision(options):
        options["precision"] = None
    if command != "fit":
        return _new_trainer({**options, "logger": options["logger"] or False}), []
    task = chosen.task.name if chosen.task else "default"
    runs = Path(options["default_root_dir"] or ".") / RUNS
    if options["logger"] in (None, True):
        options["logger"] = default_logger(runs, task)
    options["logger"] = continue_logs(options["logger"], chosen.loaded)
    options["callbacks"] = _training_callbacks(options, values, chosen.loaded, saved)
    trainer = _new_trainer(options)
    return trainer, prepare_run_folder(trainer, runs / task, chosen.checkpoint)


def find_device(values: Mapping[str, Any]) -> torch.device:
    """Return the device for predictions: the named one, or else the first one.

    Args:
        values: the trainer's options.
    """
    devices = values["devices"]
    options = {"accelerator": values["accelerator"], "devices": devices if isinstance(devices, list) else 1}
    return _new_trainer(options | {"logger": False, "enable_checkpointing": False}).strategy.root_device


def default_precision(values: Mapping[str, Any]) -> str:
    """Return mixed bfloat16 on GPUs that support it, otherwise 32 bits: bfloat16 is slower on most CPUs.

    Args:
        values: the trainer's options.
    """
    on_gpu = values["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


def _create_options(values: Mapping[str, Any]) -> Values:
    """Instantiate loggers, callbacks and other objects in the trainer's options."""
    nested = {name: value for name, value in values.items() if value and isinstance(value, dict | list)}
    if not nested:
        return dict(values)
    try:
        return {**values, **_instantiate(nested)}
    except CREATION_ERRORS:
        for name, value in nested.items():
            for each in value if isinstance(value, list) else [value]:
                _check_option(name, each)
                _check_option(name, [each])
        raise


def _check_option(name: str, value: Any) -> None:
    """Raise the error of a class that cannot be created; jsonargparse's own error lists all types that it tried."""
    try:
        _instantiate({name: value})
    except CREATION_ERRORS as error:
        cause = _root_cause(error)
        if _is_of_jsonargparse(cause):
            return
        surface_own_fault(cause)
        missing = missing_package(" ".join(str(error).split()))
        raise UserError(missing or f"--trainer.{name}: {' '.join(str(cause).split())}") from error


def _instantiate(values: Mapping[str, Any]) -> Values:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False)
    config = parser.parse_object({"trainer": copy.deepcopy(dict(values))}, defaults=False)  # it changes its argument
    return dict(vars(parser.instantiate(config)["trainer"]))


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _is_of_jsonargparse(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).partition(".")[0] == "jsonargparse"


def _new_trainer(options: Mapping[str, Any]) -> Trainer:
    try:
        return Trainer(**options)
    except MisconfigurationException as error:
        if "No supported gpu backend" in str(error):
            raise UserError(
                f"--trainer.accelerator={options['accelerator']}: torch finds no GPU on this machine "
                "(use --trainer.accelerator=cpu)"
            ) from error
        raise


def _progress(options: Mapping[str, Any]) -> list[Any]:
    """Create the callback for progress without a terminal, unless a progress bar is configured or disabled."""
    chosen = _has(options["callbacks"], ProgressBar)
    return [] if chosen or has_terminal() or options["enable_progress_bar"] is False else [LogProgress()]


def _training_callbacks(
    options: Mapping[str, Any], values: Values, loaded: Checkpoint | None, saved: Values
) -> list[Any]:
    """Return the configured callbacks with those that restore, record and save a run."""
    restored = [RestoredState(loaded.path, loaded)] if loaded is not None else []
    callbacks = with_found_values([*restored, *options["callbacks"]], saved, loaded is not None)
    if options["enable_model_summary"] is not False and not _has(callbacks, ModelSummary):
        callbacks.append(ParameterSummary())
    if options["fast_dev_run"]:  # saves nothing
        return callbacks
    callbacks.append(SaveConfig(saved))
    if options["log_every_n_steps"] is None:
        callbacks.append(LogInterval())
    if options["enable_checkpointing"] is not False:
        if not _has(callbacks, ModelCheckpoint):
            callbacks.append(best_checkpoint(values["checkpoint"]["best"]))
        callbacks.append(LastCheckpoint(values["checkpoint"]["every_n_steps"]))
    return callbacks


def _with_checkpoint_io(plugins: list[Any], loaded: Checkpoint | None) -> list[Any]:
    """Add atomic writing of checkpoints to the trainer's plugins, unless one of them writes checkpoints."""
    for plugin in plugins:
        if isinstance(plugin, AsyncCheckpointIO) and plugin.checkpoint_io is None:
            plugin.checkpoint_io = AtomicCheckpointIO(loaded)
    if any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        return plugins
    return [*plugins, AtomicCheckpointIO(loaded)]


def _has(callbacks: Iterable[Any], kind: type) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
