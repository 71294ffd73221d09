"""Where the model lies that a command uses or goes on with, and what is known of it there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perceiver_cli.values import Values, name_of
from perceiver_registry import UserError, registry
from perceiver_registry.formats import format_of

NEWEST = ("last", "best")
"""Names of checkpoints, which as paths stand for the newest of that name."""

CHECKPOINT = "checkpoint"
"""The format of a run's checkpoints, with which a run goes on, and of which Lightning restores all of a module."""


def look_at(source: str) -> tuple[Path | None, Mapping[str, Any]]:
    """What lies at a source: the checkpoint of a run, or None if it is a model in another format; and its description.

    Raises:
        UserError: if there is no model.
        PluginError: if it needs something that is not installed; the message says what to install.
    """
    entry = format_of(source)
    description = entry.resolve("format")().description(source)
    return Path(source) if entry.name == CHECKPOINT else None, description


def find_source(
    command: str, ckpt_path: str | None, named: Values, user: Values, flags: list[str], help: bool
) -> str | None:
    """Where the model lies that is to be used or to go on with: a file, a folder or a hub id; None if none is needed.

    Args:
        command: the subcommand.
        ckpt_path: what ``--ckpt_path`` says. None: to predict with, the published model that the names choose.
        named: what flags choose by name. A config file does not choose what predicts: it is that of a run with weights
            of its own.
        user: the values of config files and these flags.
        flags: the flags that are yet to be parsed.
        help: whether only help is asked for, for which no source is needed.

    Raises:
        UserError: if there is none, or more than one.
    """
    model, task = name_of(named, "model"), name_of(named, "task")
    if command == "predict" and ckpt_path and model:
        raise UserError(f"--ckpt_path={ckpt_path} and --model={model}: give one of the two; each is a model to predict")
    if ckpt_path:
        newest = ckpt_path in NEWEST
        return str(find_checkpoint(ckpt_path, user, flags)) if newest else os.path.expanduser(ckpt_path)
    return published(model, task) if command == "predict" and not help else None


def published(model: str | None, task: str | None) -> str:
    """The source of a published model.

    Args:
        model: the name of a named model. None: the task's.
        task: the name of a task.

    Raises:
        UserError: if there is none.
    """
    if model is None and task is not None:
        entry = registry().get("task", task)
        name = entry.spec.published
        model = registry().short_name(registry().get("model", name, entry.plugin)) if name else None
    source = registry().get("model", model).spec.params if model else None
    if source is not None:
        return source
    reason = ""
    if model is not None:
        reason = f"model {model!r} has no published weights; "
    elif task is not None:
        reason = f"no model is published for task {task!r}; "
    tasks = [registry().short_name(entry) for entry in registry().entries("task") if entry.spec.published]
    raise UserError(
        f"--ckpt_path is missing: {reason}give a checkpoint, a folder or a hub id of a model; without it, published "
        f"models of these tasks predict: {', '.join(tasks) or 'none'}"
    )


def find_checkpoint(ckpt_path: str, user: Values, flags: list[str]) -> Path:
    """The checkpoint that ``--ckpt_path`` means: a path, or "last" or "best" for the newest of that name.

    Raises:
        UserError: if there is none of that name.
    """
    if ckpt_path not in NEWEST:
        return Path(ckpt_path).expanduser()
    root = runs_folder(user, flags)
    found = sorted(root.glob(f"*/*/checkpoints/{ckpt_path}.ckpt"), key=lambda path: path.stat().st_mtime)
    name = name_of(user, "task")
    if name:
        folder = _logger_option("name", user, flags, registry().get("task", name).name)
        found = [path for path in found if path.parents[2].name == folder]
    if not found:
        raise UserError(f"--ckpt_path={ckpt_path}: no run with a checkpoint in {root}")
    return found[-1]


def runs_folder(user: Values, flags: list[str]) -> Path:
    """The folder in which loggers keep their runs."""
    default = _flag("trainer.default_root_dir", flags) or user.get("trainer", {}).get("default_root_dir") or "."
    return Path(_logger_option("save_dir", user, flags, str(Path(default) / "logs")))


def _logger_option(option: str, user: Values, flags: list[str], default: str) -> str:
    logger = user.get("trainer", {}).get("logger")
    configured = logger.get("init_args", {}).get(option) if isinstance(logger, Mapping) else None
    flag = _flag(f"trainer.logger.{option}", flags) or _flag(f"trainer.logger.init_args.{option}", flags)
    return flag or configured or default


def _flag(name: str, flags: list[str]) -> str | None:
    """The value of a flag that is yet to be parsed, written with "=" or as the next word."""
    for i, flag in enumerate(flags):
        written, equals, value = flag.partition("=")
        if written == f"--{name}":
            return value if equals else next(iter(flags[i + 1 :]), None)
    return None
