"""Sources of models: files, folders, hub ids, and the newest run's "last" and "best" checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from perceiver_cli.command_line import CommandLine
from perceiver_cli.values import Values, name_of
from perceiver_registry import UserError, registry

NEWEST = ("last", "best")
"""Names of checkpoints that, given as a source, select the newest run's."""

CKPT_PATH = "--ckpt_path="
"""Flag that names a source, as messages begin with it."""


def find_source(name: str, user: Values | None = None, line: CommandLine | None = None, label: str = CKPT_PATH) -> str:
    """Return the file, folder or hub id that the name of a source selects.

    Args:
        name: a path, a hub id, or "last" or "best" for the newest run's checkpoint.
        user: values of config files and of the names on the command line, which may set the folder of runs.
        line: the command line, which may set the folder of runs.
        label: text before the name in messages; empty for a positional argument.

    Raises:
        UserError: if no run has that checkpoint.
    """
    if name not in NEWEST:
        return os.path.expanduser(name)
    return str(_newest_checkpoint(name, user or {}, line or CommandLine(), label))


def published(model: str | None, task: str | None) -> str:
    """Return the source of a published model.

    Args:
        model: name of a named model. None: the published model of the task.
        task: name of a task.

    Raises:
        UserError: if no model is published.
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
        reason = f", and model {model!r} has no published weights"
    elif task is not None:
        reason = f", and task {task!r} has no published model"
    tasks = [registry().short_name(entry) for entry in registry().entries("task") if entry.spec.published]
    raise UserError(
        f"--ckpt_path: missing{reason} (give a checkpoint, folder or hub id of a model, or best or last for the "
        f"newest run; tasks with a published model: {', '.join(tasks) or 'none'})"
    )


def _newest_checkpoint(name: str, user: Values, line: CommandLine, label: str) -> Path:
    """Find a checkpoint of the newest run; older runs are not used instead."""
    root = runs_folder(user, line)
    task = name_of(user, "task")
    run = newest_run(root, registry().get("task", task).name if task else None)
    if run is None:
        of_task = f" of task {task!r}" if task else ""
        raise UserError(f"{label}{name}: no run{of_task} in {root} (give the path of a checkpoint)")
    path = run / "checkpoints" / f"{name}.ckpt"
    if not path.is_file():
        raise UserError(f"{label}{name}: the newest run, {run}, has no {path.name}: {_alternatives(run, label)}")
    return path


def newest_run(root: Path, task: str | None) -> Path | None:
    """Return the folder of the run that was started or resumed last.

    Args:
        root: folder of runs.
        task: name of the run's task. None: any.
    """
    runs = {folder: start for folder in root.glob("*/*") if (start := _start_of(folder)) is not None}
    newest_first = sorted(runs, key=lambda folder: (runs[folder], _version_of(folder)), reverse=True)
    return next((folder for folder in newest_first if task is None or _task_of(folder) == task), None)


def _start_of(folder: Path) -> int | None:
    """Return when a run was started or resumed, in ns; None if the folder has no run."""
    started = folder / "config.yaml"
    saved = [started] if started.is_file() else list(folder.glob("checkpoints/*.ckpt"))
    return max((file.stat().st_mtime_ns for file in saved), default=None)


def _version_of(folder: Path) -> int:
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def _task_of(folder: Path) -> str:
    """Return the task of a run, from its configuration or else from the name of its parent folder."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return registry().get("task", config["task"]["name"]).name
    except (OSError, ValueError, TypeError, KeyError, RecursionError, yaml.YAMLError, UserError):
        return folder.parent.name


def _alternatives(run: Path, label: str) -> str:
    """Compose why a run lacks a checkpoint, and which ones can be used instead."""
    found = sorted(run.glob("checkpoints/*.ckpt"))
    if found:
        reason = "no validation has run" if found == [run / "checkpoints" / "last.ckpt"] else "it has others"
        return f"{reason} ({label}{found[-1]} exists)"
    others = [path for path in run.parents[1].glob("*/*/checkpoints/*.ckpt") if path.stem in NEWEST]
    if not others:
        return "it failed, or has not saved one yet"
    newest = max(others, key=lambda path: path.stat().st_mtime_ns)
    return f"it failed, or has not saved one yet (an older run has {label}{newest})"


def runs_folder(user: Values, line: CommandLine) -> Path:
    """Return the folder of runs, as the options of the trainer and its logger set it."""
    default = line.text("trainer.default_root_dir") or (user.get("trainer") or {}).get("default_root_dir") or "."
    return Path(_logger_option("save_dir", user, line, str(Path(default) / "logs")))


def _logger_option(option: str, user: Values, line: CommandLine, default: str) -> str:
    logger = (user.get("trainer") or {}).get("logger")
    configured = logger.get("init_args", {}).get(option) if isinstance(logger, Mapping) else None
    flag = line.text(f"trainer.logger.{option}") or line.text(f"trainer.logger.init_args.{option}")
    return flag or configured or default
