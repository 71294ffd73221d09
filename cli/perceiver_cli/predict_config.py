"""What ``predict`` uses of a command line: a model as it was trained, and where to compute."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from perceiver_cli.command_line import CommandLine, read_command_line, refuse_single_dashes
from perceiver_cli.config_files import TRAINER, config_layers, trainer_layers
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
"""Sections of other commands. A config file may be one of theirs and is read without them; as flags they are wrong."""

CHOOSING_NAMES = ("task", "model")
"""Names that choose the model that predicts."""

TRAINER_OPTIONS = ("accelerator", "devices", "default_root_dir", "logger")
"""Options of the trainer that say where to compute and which folder runs are in."""


def read_prediction(argv: Iterable[str]) -> Run:
    """Read what a command line says about a prediction.

    Args:
        argv: what follows "predict".

    Raises:
        UserError: if a flag is of no use in prediction, or the model cannot be found.
    """
    line = read_command_line(argv)
    refuse_single_dashes(line, READ_FIRST)
    _refuse_unused(line)
    names = layer_of_names(line)
    user = [*config_layers(line, _used_values), names, *trainer_layers(line)]
    chosen = merge_layers(user)
    ckpt_path = line.text("ckpt_path") or chosen.get("ckpt_path")
    source = _find_model(ckpt_path, line, names.values, chosen)
    opened = open_source(source) if source else None
    described = opened.description.task if opened else None  # before the note: a missing plugin is an error here
    # Where output and notes go to one file, the note would be read as data.
    is_data = line.text("format") not in (None, "table") and is_merged()
    if source and source != ckpt_path and not is_data:
        print(f"perceiver: predicting with {source}", file=sys.stderr)
    task_name = name_of(chosen, "task") or described
    task_name = task_name or task_of_model(name_of(chosen, "model"))
    task = registry().get("task", task_name) if task_name else None
    return Run(task, line.without(READ_FIRST), [], user, opened, help=line.has("help"))


def _refuse_unused(line: CommandLine) -> None:
    """Raise an error if prediction has no use for one of the flags."""
    for flag in line.flags:
        section, _, option = flag.name.partition(".")
        is_used = flag.name in CHOOSING_NAMES or (section == TRAINER and option.partition(".")[0] in TRAINER_OPTIONS)
        if section in UNUSED_SECTIONS and not is_used:
            raise UserError(
                f"--{flag.name} changes nothing in predict, which takes a model as it was trained; perceiver predict "
                "--help shows what it takes"
            )


def _used_values(values: Values) -> Values:
    """A config file's values without those that prediction has no use for: it may be that of a training run."""
    kept = {key: value for key, value in values.items() if key not in UNUSED_SECTIONS}
    trainer = {key: value for key, value in (values.get(TRAINER) or {}).items() if key in TRAINER_OPTIONS}
    task = name_of(values, "task")
    return kept | ({TRAINER: trainer} if trainer else {}) | ({"task": {NAME_KEYS["task"]: task}} if task else {})


def _find_model(ckpt_path: str | None, line: CommandLine, named: Values, chosen: Values) -> str | None:
    """The source of the model: what ``--ckpt_path`` says or, without it, the published model that the flags choose.

    A config file does not choose what predicts: it is that of a run with weights of its own.
    """
    model, task = name_of(named, "model"), name_of(named, "task")
    if ckpt_path and model:
        raise UserError(f"--ckpt_path={ckpt_path} and --model={model}: give one of the two; each is a model to predict")
    if ckpt_path:
        return find_source(ckpt_path, chosen, line)
    return None if line.has("help") else published(model, task)
