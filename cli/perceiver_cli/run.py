"""Runs of the subcommands that train or apply a model: creation of their objects, and execution."""

from __future__ import annotations

import contextlib
import os
import shlex
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pytorch_lightning import LightningDataModule, Trainer, seed_everything
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException, SIGTERMException

from perceiver_cli.allowed import as_flag
from perceiver_cli.checkpoints import LastCheckpoint
from perceiver_cli.commands import INPUT_COMMANDS
from perceiver_cli.data_modules import data_class
from perceiver_cli.defaults import check_defaults
from perceiver_cli.errors import INTERRUPTED, TERMINATED, InterruptedRunError
from perceiver_cli.flag_names import named_flags
from perceiver_cli.flags import Parser, build_parser, print_help
from perceiver_cli.library_errors import missing_package
from perceiver_cli.library_warnings import as_note
from perceiver_cli.lightning_messages import quiet
from perceiver_cli.limits import check_limits, remove_limits, replaced_limits
from perceiver_cli.links import explained_mismatches, fill_in_links, links_left_open
from perceiver_cli.model_layers import description_of
from perceiver_cli.notes import note
from perceiver_cli.output import check_writable
from perceiver_cli.paths import refuse_remote_values
from perceiver_cli.predict_config import read_prediction
from perceiver_cli.prediction import predict, readable, restore
from perceiver_cli.record import as_plain
from perceiver_cli.report import report
from perceiver_cli.restored_state import RestoredState, check_training_state
from perceiver_cli.results import RunResult, metrics_of, result_of_training, write_result
from perceiver_cli.run_config import Run, read_run
from perceiver_cli.run_folder import removed_if_unused, run_folder
from perceiver_cli.sized_defaults import apply_sized_defaults
from perceiver_cli.trainer import create_trainer, default_precision, find_device
from perceiver_cli.validation import WORDS, validate
from perceiver_cli.values import Values
from perceiver_registry import ModelDescription, UserError, config_from_dict, create_module, registry
from perceiver_registry.discovery import Selection
from perceiver_registry.errors import RunError, surface_own_fault
from perceiver_registry.formats import shared_sources
from perceiver_registry.params import check_fits

Kind = TypeVar("Kind")


def run(command: str, argv: Sequence[str]) -> RunResult | None:
    """Run a subcommand.

    Args:
        command: "fit", "validate", "test", "predict" or "embed".
        argv: the arguments after the subcommand.

    Returns:
        The result of training or evaluation; None for predictions, help and a printed configuration.

    Raises:
        UserError: if a flag, a file or a combination of them is wrong.
        InterruptedRunError: if the run was interrupted.
    """
    warnings.formatwarning = as_note
    with shared_sources():
        chosen = read_prediction(command, argv) if command in INPUT_COMMANDS else read_run(command, argv)
        parser = build_parser(command, chosen)
        if chosen.help:
            print_help(parser, chosen)
            return None
        if command == "fit":
            check_defaults(parser, chosen)
        values = validate(parser, chosen)
        if command == "fit":
            remove_limits(values, replaced_limits(values, chosen))
        refuse_remote_values({name: value for name, value in values.items() if name != WORDS})
        if command in INPUT_COMMANDS:
            with wrong_use():
                predict(command, chosen, values, find_device(values["trainer"]))
            return None
        file = values.pop("result")
        overwrite = values.pop("overwrite")
        if file is not None:
            check_writable(f"--result={file}", Path(file).expanduser(), overwrite)
        parts = _create_parts(command, parser, chosen, values)
    if parts is None:
        return None
    with named_flags(values):
        result = fit(parts) if command == "fit" else evaluate(command, parts)
    if file is not None:
        write_result(result, file)
    return result


class RunParts(NamedTuple):
    """Objects of a run.

    Attributes:
        trainer: Lightning's trainer.
        module: the task's Lightning module.
        datamodule: the data module.
        values: the values of the run.
        chosen: the run.
        sized: line about the defaults by the size of the data; "" without such defaults.
        folders: folders that were created for the run.
    """

    trainer: Trainer
    module: Any
    datamodule: LightningDataModule
    values: Values
    chosen: Run
    sized: str
    folders: Sequence[Path]


def _create_parts(command: str, parser: Parser, chosen: Run, values: Values) -> RunParts | None:
    """Create the objects of a run; with ``--print_config`` print its values instead."""
    with named_flags(values), wrong_use():
        seed_everything(values["seed_everything"], workers=True, verbose=False)
        datamodule = _create_data(command, chosen, values)
        from_data = fill_in_links(values, datamodule)
        if chosen.checkpoint is not None and chosen.description is not None:
            from_data += links_left_open(values, chosen.description.run, chosen.has_flag)
        sized = ""
        if command == "fit" and chosen.checkpoint is None:
            chosen, sized = apply_sized_defaults(parser, chosen, values, datamodule)
        values["trainer"]["precision"] = values["trainer"]["precision"] or default_precision(values["trainer"])
        if chosen.print_config:
            if sized:
                note(f"perceiver: {sized}")
            print(yaml.safe_dump(_saved(values, from_data), sort_keys=False), end="")
            return None
        with explained_mismatches(values, datamodule, chosen.locate, runs_model=False):
            module = _create_module(chosen, values, _saved(values, from_data))
        module.check_data(datamodule)
        trainer, folders = create_trainer(command, values, chosen, _saved(values, from_data))
    return RunParts(trainer, module, datamodule, values, chosen, sized, folders)


def fit(parts: RunParts) -> RunResult:
    """Train a model, and report its results and checkpoints."""
    trainer, chosen = parts.trainer, parts.chosen
    last, resumed_step = _find_callback(trainer, LastCheckpoint), None
    if chosen.checkpoint is not None:
        assert chosen.loaded is not None
        with chosen.loaded.description.loading(chosen.checkpoint):
            check_training_state(chosen.loaded.content, trainer, chosen.checkpoint)
        check_limits(parts.values, chosen, chosen.loaded.content, chosen.checkpoint)
        resumed_step = chosen.loaded.content["global_step"]
    explained = explained_mismatches(
        parts.values, parts.datamodule, chosen.locate, has_run=lambda: trainer.global_step > 0
    )
    _print(parts.sized)
    start = time.perf_counter()
    with _explained_failures(trainer, last), explained, removed_if_unused(parts.folders, trainer), quiet():
        trainer.fit(parts.module, datamodule=parts.datamodule, ckpt_path=chosen.checkpoint, weights_only=True)
    seconds = time.perf_counter() - start
    _report(trainer, last, resumed_step)
    trained = result_of_training(trainer, last.path(trainer) if last else None, run_folder(trainer))
    return RunResult("fit", _task_name(chosen), seconds=seconds, model=chosen.source, **trained)


@contextlib.contextmanager
def _explained_failures(trainer: Trainer, last: LastCheckpoint | None) -> Iterator[None]:
    """Report failures of training within this context with the checkpoint that can be resumed."""
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(" ".join(str(error).split())) from error
    except RunError as error:
        raise RunError(f"{error}; {_last_finite_state(last, trainer)}") from error
    except (SystemExit, KeyboardInterrupt) as error:  # Lightning's exceptions for SIGTERM and Ctrl-C
        if last is not None and last.path(trainer).exists():
            note(f"\nInterrupted. Resume with: perceiver fit --ckpt_path={last.path(trainer)}{_resume_flags()}")
        raise InterruptedRunError(TERMINATED if isinstance(error, SIGTERMException) else INTERRUPTED) from error
    except Exception as error:
        restored = _find_callback(trainer, RestoredState)
        explained = restored.explained(error) if restored else error
        if explained is error:
            raise
        raise explained from error


def _find_callback(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)


def _last_finite_state(last: LastCheckpoint | None, trainer: Trainer) -> str:
    path = last.path(trainer) if last else None
    return f"the last finite state is {path}" if path and path.exists() else "no finite state was saved"


@rank_zero_only
def _print(line: str) -> None:
    if line:
        print(line, flush=True)  # before the progress of training


@rank_zero_only
def _report(trainer: Trainer, last: LastCheckpoint | None, resumed_step: int | None) -> None:
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        print("\nTrial run: nothing was saved.")
        return
    path = last.path(trainer) if last else None
    for line in report(trainer, path, _resume_flags(), _plugin_flags(), resumed_step):
        print(line)


def evaluate(command: str, parts: RunParts) -> RunResult:
    """Compute the metrics of a model on the validation or test data; Lightning prints them."""
    chosen = parts.chosen
    run_loop = parts.trainer.validate if command == "validate" else parts.trainer.test
    if chosen.loaded is not None:
        with chosen.loaded.description.loading(chosen.loaded.path), readable(chosen.loaded.path):
            restore(parts.module, chosen.loaded.take())
    start = time.perf_counter()
    with explained_mismatches(parts.values, parts.datamodule, chosen.locate), quiet():
        run_loop(parts.module, datamodule=parts.datamodule)
    seconds = time.perf_counter() - start
    return RunResult(command, _task_name(chosen), metrics_of(parts.trainer), seconds, chosen.source)


def _task_name(chosen: Run) -> str:
    assert chosen.task is not None
    return registry().short_name(chosen.task)


# Creation of objects


def _create_data(command: str, chosen: Run, values: Values) -> LightningDataModule:
    options = dict(values["data"])
    assert chosen.task is not None
    if command == "fit" and options.get("train_files", ()) is None:
        raise UserError("--data.train_files: missing (name the files to train on)")
    name = options.pop("name") or chosen.task.spec.data
    assert name is not None
    datamodule: LightningDataModule = data_class(name, chosen.task.name)(**options)
    if command != "fit" and chosen.description is not None:
        datamodule.known = _trained_statistics(chosen.description)  # type: ignore[attr-defined]
    datamodule.inherited = _inherited_data(chosen, values)  # type: ignore[attr-defined]
    return datamodule


def _inherited_data(chosen: Run, values: Values) -> Values:
    """Return the description of the data of the model that is resumed, evaluated or whose weights are used."""
    description = chosen.description
    params = values["model"].get("params") or values["model"].get("encoder", {}).get("params")
    if description is None and params:
        description = description_of(params)
    return dict(description.data) if description else {}


def _trained_statistics(description: ModelDescription) -> Values:
    """Return the statistics of the data that a model was trained on, and the names of its classes and targets."""
    decoder = description.model["decoder"]
    names = ("label_names", "multi_label", "target_names", "target_mean", "target_std")
    return dict(description.data) | {name: decoder[name] for name in names if decoder.get(name) is not None}


def _create_module(chosen: Run, values: Values, saved: Values) -> Any:
    assert chosen.task is not None
    config = {key: value for key, value in values["model"].items() if key != "name"}
    options = {key: value for key, value in values["task"].items() if key != "name"}
    for section in ("optimizer", "lr_scheduler"):
        plain = values.get(section) or {}
        options[section] = plain if plain.get("name") else None
    module = create_module(values["task"]["name"], config_from_dict(config), **options)
    module.run_config = saved
    if chosen.loaded is not None:
        # Lightning's own error has a line for each parameter.
        with chosen.loaded.description.loading(chosen.loaded.path):
            check_fits(module.state_dict(), chosen.loaded.state_dict, str(chosen.loaded.path))
    return module


def _saved(values: Values, from_data: Iterable[str]) -> Values:
    """Return the values to save with a run, as plain data: all but those that apply to this command only.

    Args:
        values: the values of the run.
        from_data: dotted names of fields with values of the data, which are saved as null, so that a run with the same
            configuration and other data takes that data's.
    """
    left_out = ("print_config", "inputs", "input", "format", "ckpt_path")
    saved = {key: as_plain(value) for key, value in values.items() if key not in left_out}
    for name in from_data:
        section, _, field = name.rpartition(".")
        reduce(lambda node, key: node[key], section.split("."), saved)[field] = None
    return saved


# Messages


@contextlib.contextmanager
def wrong_use() -> Iterator[None]:
    """Report errors of constructors within this context as user errors."""
    try:
        yield
    except (ValueError, MisconfigurationException, TypeError) as error:
        surface_own_fault(error)
        line = " ".join(str(error).split())
        raise UserError(missing_package(line) or line) from error


def _resume_flags() -> str:
    """Return the common flags that a command needs to resume this run, each after a space."""
    return _plugin_flags() + as_flag()


def _plugin_flags() -> str:
    """Return the flags that load this command's local plugins, each after a space."""
    cwd = f"{os.getcwd()}{os.sep}"
    files = [file.removeprefix(cwd) for file in Selection.of_environment().files]
    return "".join(f" {shlex.quote(f'--plugin={file}')}" for file in files)
