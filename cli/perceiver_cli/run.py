"""``fit``, ``validate``, ``test`` and ``predict``: from values to a trainer, a data module and a Lightning module."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorch_lightning import LightningDataModule, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint, ProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import AsyncCheckpointIO, CheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from perceiver_cli.allowed import as_flag
from perceiver_cli.checkpoint_files import AtomicCheckpointIO
from perceiver_cli.checkpoints import LastCheckpoint, best_checkpoint
from perceiver_cli.data_modules import data_class
from perceiver_cli.defaults import check_defaults
from perceiver_cli.errors import INTERRUPTED, TERMINATED, InterruptedRunError
from perceiver_cli.flags import build_parser, print_help
from perceiver_cli.foreign_paths import RUNS
from perceiver_cli.library_errors import missing_package
from perceiver_cli.library_warnings import as_note
from perceiver_cli.links import fill_in_links
from perceiver_cli.loggers import LogInterval, continue_logs
from perceiver_cli.notes import note
from perceiver_cli.paths import refuse_remote_values
from perceiver_cli.predict_config import read_prediction
from perceiver_cli.prediction import predict, readable, restore
from perceiver_cli.progress import LogProgress, has_terminal
from perceiver_cli.record import as_plain
from perceiver_cli.report import report
from perceiver_cli.restored_state import RestoredState, check_training_state
from perceiver_cli.run_config import Run, read_run
from perceiver_cli.run_folder import SaveConfig, prepare_run_folder
from perceiver_cli.tuning import with_found_values
from perceiver_cli.validation import trainer_options, validate
from perceiver_cli.values import Values
from perceiver_registry import ModelDescription, UserError, config_from_dict, create_module
from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.discovery import Selection
from perceiver_registry.errors import RunError, surface_own_fault
from perceiver_registry.params import check_fits


def run(command: str, argv: Sequence[str]) -> None:
    """Runs a subcommand.

    Args:
        command: "fit", "validate", "test" or "predict".
        argv: what follows it on the command line.

    Raises:
        UserError: if something is wrong with what was given.
        InterruptedRunError: if a person ended the run.
    """
    warnings.formatwarning = as_note
    chosen = read_prediction(argv) if command == "predict" else read_run(command, argv)
    parser = build_parser(command, chosen)
    if chosen.help:
        print_help(parser, chosen)
        return
    if command == "fit":
        check_defaults(parser, chosen)
    values = validate(parser, chosen)
    refuse_remote_values({name: value for name, value in values.items() if name != "inputs"})
    with _wrong_use():
        if command == "predict":
            predict(chosen, values, _device(values["trainer"]))
            return
        seed_everything(values["seed_everything"], workers=True, verbose=False)
        if command == "fit" and values["data"].get("train_files", ()) is None:
            raise UserError("--data.train_files is missing: name files to train on")
        datamodule = _create_data(values)
        if command != "fit" and chosen.description is not None:
            datamodule.known = _known_of_data(chosen.description)  # type: ignore[attr-defined]
        fill_in_links(values, datamodule)
        values["trainer"]["precision"] = values["trainer"]["precision"] or _default_precision(values["trainer"])
        if chosen.print_config:
            print(yaml.safe_dump(_saved(values), sort_keys=False), end="")
            return
        module = _create_module(chosen, values)
        module.check_data(datamodule)
        trainer = _create_trainer(command, values, chosen)
    if command == "fit":
        fit(trainer, module, datamodule, chosen)
    else:
        evaluate(command, trainer, module, datamodule, chosen)


def fit(trainer: Trainer, module: Any, datamodule: LightningDataModule, chosen: Run) -> None:
    """Trains, and says where the result lies."""
    last = next((callback for callback in trainer.callbacks if isinstance(callback, LastCheckpoint)), None)  # type: ignore[attr-defined]
    restored = next((callback for callback in trainer.callbacks if isinstance(callback, RestoredState)), None)  # type: ignore[attr-defined]
    if chosen.checkpoint is not None:
        assert chosen.loaded is not None
        with chosen.loaded.description.loading(chosen.checkpoint):
            check_training_state(chosen.loaded.content, trainer, chosen.checkpoint)
    try:
        with _quiet():
            trainer.fit(module, datamodule=datamodule, ckpt_path=chosen.checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    except RunError as error:
        raise RunError(f"{error}; {_last_finite_state(last, trainer)}") from error
    except (SystemExit, KeyboardInterrupt) as error:  # what Lightning makes of SIGTERM and Ctrl-C
        if last is not None and last.path(trainer).exists():
            note(f"\nInterrupted. Go on with: perceiver fit --ckpt_path={last.path(trainer)}{_flags_again()}")
        raise InterruptedRunError(TERMINATED if isinstance(error, SIGTERMException) else INTERRUPTED) from error
    except Exception as error:
        explained = restored.explained(error) if restored else error
        if explained is error:
            raise
        raise explained from error
    _report(trainer, last)


def _last_finite_state(last: LastCheckpoint | None, trainer: Trainer) -> str:
    path = last.path(trainer) if last else None
    return f"the last finite state is {path}" if path and path.exists() else "no finite state was saved before"


@rank_zero_only
def _report(trainer: Trainer, last: LastCheckpoint | None) -> None:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        print("\nA trial run: nothing was saved.")
        return
    for line in report(trainer, last.path(trainer) if last else None, _flags_again(), _plugin_flags()):
        print(line)


def evaluate(
    command: str, trainer: Trainer, module: LightningModule, datamodule: LightningDataModule, chosen: Run
) -> None:
    """Computes the metrics of a model on the validation or test data; Lightning prints them."""
    run_loop = trainer.validate if command == "validate" else trainer.test
    if chosen.loaded is not None:
        with chosen.loaded.description.loading(chosen.loaded.path), readable(chosen.loaded.path):
            restore(module, chosen.loaded.take())
    with _quiet():
        run_loop(module, datamodule=datamodule)


# From values to objects


def _create_data(values: Values) -> LightningDataModule:
    options = dict(values["data"])
    return data_class(options.pop("name"))(**options)


def _known_of_data(description: ModelDescription) -> Values:
    """Statistics of a trained model's data, and names of its classes and targets."""
    decoder = description.model["decoder"]
    names = ("label_names", "target_names", "target_mean", "target_std")
    return dict(description.data) | {name: decoder[name] for name in names if decoder.get(name) is not None}


def _create_module(chosen: Run, values: Values) -> Any:
    assert chosen.task is not None
    config = {key: value for key, value in values["model"].items() if key != "name"}
    options = {key: value for key, value in values["task"].items() if key != "name"}
    for section in ("optimizer", "lr_scheduler"):
        plain = values.get(section) or {}
        options[section] = plain if plain.get("name") else None
    module = create_module(values["task"]["name"], config_from_dict(config), **options)
    module.run_config = _saved(values)
    if chosen.loaded is not None:
        # Lightning would say so in many lines, one for each parameter.
        with chosen.loaded.description.loading(chosen.loaded.path):
            check_fits(module.state_dict(), chosen.loaded.state_dict, str(chosen.loaded.path))
    return module


def _create_trainer(command: str, values: Values, chosen: Run) -> Trainer:
    options = trainer_options(values["trainer"])
    if options["devices"] in (-1, "-1"):
        options["devices"] = "auto"  # all there are as well, and on a CPU no error
    if isinstance(options["val_check_interval"], int) and options["check_val_every_n_epoch"] == 1:
        options["check_val_every_n_epoch"] = None  # steps are counted across epochs, however short these are
    options["callbacks"] = _as_list(options["callbacks"])
    options["callbacks"] += _progress(options)
    options["plugins"] = _with_checkpoint_io(_as_list(options["plugins"]), chosen.loaded)
    if command == "fit":
        if options["logger"] in (None, True):
            folder = Path(options["default_root_dir"] or ".") / RUNS
            name = chosen.task.name if chosen.task else "default"
            options["logger"] = TensorBoardLogger(str(folder), name=name, default_hp_metric=False)
        options["logger"] = continue_logs(options["logger"], chosen.loaded)
        if chosen.checkpoint is not None:
            options["callbacks"] = [RestoredState(chosen.checkpoint, chosen.loaded), *options["callbacks"]]
        saved = _saved(values)
        options["callbacks"] = with_found_values(options["callbacks"], saved, chosen.checkpoint is not None)
        options["callbacks"] += _fit_callbacks(options, values, saved)
    else:
        options["logger"] = options["logger"] or False
    trainer = _new_trainer(options)
    if command == "fit":
        runs = Path(options["default_root_dir"] or ".") / RUNS / (chosen.task.name if chosen.task else "default")
        prepare_run_folder(trainer, runs, chosen.checkpoint)
    return trainer


def _new_trainer(options: Mapping[str, Any]) -> Trainer:
    try:
        return Trainer(**options)
    except MisconfigurationException as error:
        if "No supported gpu backend" in str(error):
            raise UserError(
                f"--trainer.accelerator={options['accelerator']}: this machine has no GPU that torch can use; "
                "--trainer.accelerator=cpu goes without"
            ) from error
        raise


def _progress(options: Mapping[str, Any]) -> list[Any]:
    """Callback for progress without a terminal, unless a progress bar is chosen or disabled."""
    chosen = any(isinstance(callback, ProgressBar) for callback in options["callbacks"])
    return [] if chosen or has_terminal() or options["enable_progress_bar"] is False else [LogProgress()]


def _fit_callbacks(options: Mapping[str, Any], values: Values, saved: Values) -> list[Any]:
    if options["fast_dev_run"]:  # a trial, which leaves nothing behind
        return []
    callbacks: list[Any] = [SaveConfig(saved)]
    if options["log_every_n_steps"] is None:
        callbacks.append(LogInterval())
    if options["enable_checkpointing"] is not False:
        if not any(isinstance(callback, ModelCheckpoint) for callback in options["callbacks"]):
            callbacks.append(best_checkpoint())
        callbacks.append(LastCheckpoint(values["checkpoint"]["every_n_steps"]))
    return callbacks


def _with_checkpoint_io(plugins: list[Any], loaded: Checkpoint | None) -> list[Any]:
    """The trainer's plugins, with checkpoints written atomically unless one of them writes checkpoints itself."""
    for plugin in plugins:
        if isinstance(plugin, AsyncCheckpointIO) and plugin.checkpoint_io is None:
            plugin.checkpoint_io = AtomicCheckpointIO(loaded)
    if any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        return plugins
    return [*plugins, AtomicCheckpointIO(loaded)]


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _saved(values: Values) -> Values:
    """The values that make up a run, as plain data, without those that are only about this call."""
    left_out = ("print_config", "inputs", "input", "format", "ckpt_path")
    return {key: as_plain(value) for key, value in values.items() if key not in left_out}


def _device(trainer_values: Mapping[str, Any]) -> torch.device:
    devices = trainer_values["devices"]  # one that is named, or the first one
    options = {"accelerator": trainer_values["accelerator"], "devices": devices if isinstance(devices, list) else 1}
    return _new_trainer(options | {"logger": False, "enable_checkpointing": False}).strategy.root_device


def _default_precision(trainer_values: Mapping[str, Any]) -> str | int:
    """bfloat16 where a GPU computes in it, otherwise 32 bits: on most CPUs bfloat16 is slower."""
    on_gpu = trainer_values["accelerator"] in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported() else "32-true"


# Messages


@contextlib.contextmanager
def _wrong_use() -> Iterator[None]:
    """What cannot be built from what was given is the user's to mend."""
    try:
        yield
    except (ValueError, MisconfigurationException, TypeError) as error:
        surface_own_fault(error)
        line = " ".join(str(error).split())
        raise UserError(missing_package(line) or line) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the hints of Lightning that a person who runs a command can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")  # steps are counted across epochs
        warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", ".*dataloader is not resumable.*")
        warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
        warnings.filterwarnings("ignore", ".*could not find the monitored key.*")  # no validation yet
        warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
        yield


def _flags_again() -> str:
    """What to add to a command that goes on with this run, a space before it; nothing if nothing is needed."""
    return _plugin_flags() + as_flag()


def _plugin_flags() -> str:
    """The flags by which another command loads the plugins that are files, as this one does."""
    here = f"{os.getcwd()}{os.sep}"
    files = [file.removeprefix(here) for file in Selection.of_environment().files]
    return "".join(f" {shlex.quote(f'--plugin={file}')}" for file in files)


UNNEEDED = (
    "weights_only",
    "litlogger",
    "seamless",
    "Tip:",
    "HPU",
    "TPU available",
    "GPU available: False",
    "Loading `train_dataloader`",
    "Found current_model_state",
)
"""What Lightning says of itself is known by these words."""


class _Unneeded(logging.Filter):
    """Drops what Lightning says of itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(words in record.getMessage() for words in UNNEEDED)


for _name in ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector"):
    logging.getLogger(_name).addFilter(_Unneeded())
