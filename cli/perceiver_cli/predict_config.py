"""Configuration of ``predict`` and ``embed``: the model's source and the device."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from perceiver_cli.command_line import CommandLine, read_command_line, refuse_single_dashes
from perceiver_cli.config_files import TRAINER, config_layers, trainer_layers
from perceiver_cli.input_commands import COMMANDS_BY_NAME
from perceiver_cli.layers import layer_of_names, merge_layers
from perceiver_cli.model_layers import task_of_model
from perceiver_cli.output import is_merged
from perceiver_cli.run_config import READ_FIRST, Run
from perceiver_cli.sources import find_source, published
from perceiver_cli.values import NAME_KEYS, Values, name_of
from perceiver_registry import UserError, registry
from perceiver_registry.formats import open_source

UNUSED_SECTIONS = (
    "model",
    "data",
    "optimizer",
    "lr_scheduler",
    "task",
    "trainer",
    "checkpoint",
    "seed_everything",
    "print_config",
)
"""Sections of other commands: ignored in config files, which training runs may share, and refused as flags."""

CHOOSING_NAMES = ("task", "model")
"""Sections whose name selects the model."""

TRAINER_OPTIONS = ("accelerator", "devices", "default_root_dir", "logger")
"""Options of the trainer that select the device and the folder of runs."""


def read_prediction(command: str, argv: Iterable[str]) -> Run:
    """Read the command line of ``predict`` or ``embed``.

    Args:
        command: "predict" or "embed".
        argv: arguments after the subcommand.

    Raises:
        UserError: if a flag has no effect in prediction, or if the model cannot be found.
    """
    line = read_command_line(argv)
    refuse_single_dashes(line, READ_FIRST)
    _refuse_unused(command, line)
    names = layer_of_names(line)
    user = [*config_layers(line, _used_values), names, *trainer_layers(line)]
    chosen = merge_layers(user)
    ckpt_path = line.text("ckpt_path") or chosen.get("ckpt_path")
    source = _find_model(ckpt_path, line, names.values, chosen)
    opened = open_source(source) if source else None
    described_task = opened.description.task if opened else None  # an error if a plugin is missing
    # In a shared stream, the note would be read as data.
    is_data = line.text("format") not in (None, "table") and is_merged()
    if source and source != ckpt_path and not is_data:
        print(f"perceiver: {COMMANDS_BY_NAME[command].action} with {source}", file=sys.stderr)
    task_name = name_of(chosen, "task") or described_task or task_of_model(name_of(chosen, "model"))
    task = registry().get("task", task_name) if task_name else None
    return Run(task, line.without(READ_FIRST), [], user, opened, help=line.has("help"))


def _refuse_unused(command: str, line: CommandLine) -> None:
    """Raise an error for a flag that has no effect in prediction."""
    for flag in line.flags:
        section, _, option = flag.name.partition(".")
        is_used = flag.name in CHOOSING_NAMES or (section == TRAINER and option.partition(".")[0] in TRAINER_OPTIONS)
        if section in UNUSED_SECTIONS and not is_used:
            raise UserError(
                f"--{flag.name}: has no effect in {command}, which uses the model as it was trained (perceiver "
                f"{command} --help lists the flags)"
            )


def _used_values(values: Values) -> Values:
    """Select the values of a config file, possibly that of a training run, that have an effect in prediction."""
    kept = {key: value for key, value in values.items() if key not in UNUSED_SECTIONS}
    trainer = {key: value for key, value in (values.get(TRAINER) or {}).items() if key in TRAINER_OPTIONS}
    task = name_of(values, "task")
    return kept | ({TRAINER: trainer} if trainer else {}) | ({"task": {NAME_KEYS["task"]: task}} if task else {})


def _find_model(ckpt_path: str | None, line: CommandLine, named: Values, chosen: Values) -> str | None:
    """Return the source of the model: that of ``--ckpt_path``, or the published model that the flags select.

    Names in a config file do not select a published model: the file may belong to a run with weights of its own.
    """
    model, task = name_of(named, "model"), name_of(named, "task")
    if ckpt_path and model:
        raise UserError(f"--ckpt_path={ckpt_path} and --model={model}: both select a model (give one of the two)")
    if ckpt_path:
        return find_source(ckpt_path, chosen, line)
    return None if line.has("help") else published(model, task)
