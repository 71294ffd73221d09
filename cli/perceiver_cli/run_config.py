"""Runs of ``fit``, ``validate`` and ``test``: layers of configuration, the task and the model's source.

A run is composed of parts chosen by name (``--task=mlm --data=wikipedia --optimizer=Lamb``). The names decide which
further flags exist, so they are read first.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from perceiver_cli.command_line import CommandLine, read_command_line, refuse_single_dashes
from perceiver_cli.compatibility import check_compatibility
from perceiver_cli.config_files import TRAINER, config_layers, trainer_layers
from perceiver_cli.data_paths import resolve_data_path
from perceiver_cli.layers import PARAMS, ConfigLayer, layer_of_names, layer_with, merge_layers
from perceiver_cli.model_layers import checkpoint_layer, default_layers, task_of_model, without_other_files
from perceiver_cli.sources import find_source
from perceiver_cli.suggestions import suggest_argument
from perceiver_cli.values import ARCHITECTURE, NAME_KEYS, Values, merge, name_of
from perceiver_registry import Entry, ModelDescription, TaskSpec, UserError, registry
from perceiver_registry.checkpoint import Checkpoint
from perceiver_registry.formats import Source, open_source

EVALUATED_FILES = {"validate": "val_files", "test": "test_files"}
"""Option of the data files that a command evaluates."""

SOURCE_USE = {"fit": "resuming from", "validate": "validating", "test": "testing"}
"""Verb phrase for what a command does with a model found by name."""

READ_FIRST = ("config", "ckpt_path", "print_config", "help", TRAINER, *NAME_KEYS, ARCHITECTURE, *PARAMS)
"""Flags that decide which other flags exist, and are read before them."""


@dataclass(frozen=True)
class Run:
    """A run as configured by everything but the flags that its names add.

    Attributes:
        task: the registered task. None: not named, which only ``--help`` accepts.
        line: the command line without the flags of :data:`READ_FIRST`.
        below: layers of defaults, published weights and the checkpoint, lowest first.
        user: layers of config files and of names on the command line, lowest first.
        opened: source of the model that is used or resumed, or None.
        print_config: whether to print the configuration instead of running it.
        help: whether to print the help instead of running.
    """

    task: Entry[TaskSpec] | None
    line: CommandLine
    below: list[ConfigLayer] = field(default_factory=list)
    user: list[ConfigLayer] = field(default_factory=list)
    opened: Source | None = None
    print_config: bool = False
    help: bool = False

    @property
    def source(self) -> str | None:
        """File, folder or hub id of the model that is used or resumed, or None."""
        return self.opened.path if self.opened else None

    @property
    def description(self) -> ModelDescription | None:
        """Description of that model, or None."""
        return self.opened.description if self.opened else None

    @property
    def loaded(self) -> Checkpoint | None:
        """Content of the source if it is a run's checkpoint, or None."""
        return self.opened.checkpoint if self.opened else None

    @property
    def checkpoint(self) -> Path | None:
        """Path of that checkpoint, or None."""
        return self.loaded.path if self.loaded else None

    @property
    def layers(self) -> list[ConfigLayer]:
        """All layers, lowest first."""
        return [*self.below, *self.user]

    def locate(self, name: str) -> str:
        """Name an option with the source of its value: a flag, a line of a config file, a checkpoint or a spec."""
        return f"--{name}" if self.has_flag(name) else layer_with(self.layers, name).locate(name)

    def has_flag(self, name: str) -> bool:
        """Return whether a flag sets an option, a section of it or an option in it."""
        given = [flag.name.removesuffix("+") for flag in self.line.flags]
        return any(f"{each}.".startswith(f"{name}.") or f"{name}.".startswith(f"{each}.") for each in given)

    @cached_property
    def values(self) -> Values:
        """Values of all layers, merged.

        The user's layers are merged first, so that optimizer options in a file apply to an optimizer named by a flag.
        """
        return merge(merge_layers(self.below), merge_layers(self.user))


def read_run(command: str, argv: Iterable[str]) -> Run:
    """Read the names that a command line chooses, and collect the layers of configuration.

    Args:
        command: "fit", "validate" or "test".
        argv: the arguments after the subcommand.

    Raises:
        UserError: if a name is unknown, or a config file or checkpoint cannot be read.
    """
    line = read_command_line(argv)
    refuse_single_dashes(line, READ_FIRST)
    names = layer_of_names(line)
    user = [*config_layers(line), names, *trainer_layers(line)]
    chosen = merge_layers(user)
    help, rest = line.has("help"), line.without(READ_FIRST)
    opened, below = _read_source(command, line, chosen, rest)
    task_name = (
        name_of(chosen, "task") or name_of(merge_layers(below), "task") or task_of_model(name_of(chosen, "model"))
    )
    if task_name is None and not help:
        raise UserError(f"--task: missing ({_suggest_task(rest)})")
    task = registry().get("task", task_name) if task_name else None
    if task and task.spec.data is None:
        raise UserError(f"--task={task.name}: has neither training nor metrics (perceiver embed uses its models)")
    if task and command == "fit":
        user = resolve_data_path(task, below, user, rest)
    if task:
        below = [*default_layers(task, [*below, *user]), *below]
    run = Run(task, rest, below, user, opened, line.has("print_config"), help)
    if task:
        check_compatibility(task, run.values)
    return run


def _read_source(
    command: str, line: CommandLine, chosen: Values, rest: CommandLine
) -> tuple[Source | None, list[ConfigLayer]]:
    """Open the source that ``--ckpt_path`` names, if any, and return it with its layer of configuration."""
    ckpt_path = line.text("ckpt_path") or chosen.get("ckpt_path")
    if not ckpt_path:
        return None, []
    opened = _open_source(command, find_source(ckpt_path, chosen, line))
    layer = _source_layer(command, opened, chosen, rest)  # reports missing plugins, hence before the note
    if opened.path != ckpt_path:
        print(f"perceiver: {SOURCE_USE[command]} {opened.path}", file=sys.stderr)
    if opened.checkpoint and not name_of(chosen, "data"):
        _require_data(opened.description, opened.checkpoint.path)
    return opened, [layer]


def _open_source(command: str, source: str) -> Source:
    # The file of a resumed run may be replaced while its optimizer still uses what was read.
    opened = open_source(source, map_files=command != "fit")
    if command == "fit" and not opened.checkpoint:
        raise UserError(
            f"--ckpt_path={source}: not a checkpoint of a run, so training cannot be resumed from it "
            f"(--model.params={source} starts a new run from its weights)"
        )
    return opened


def _source_layer(command: str, opened: Source, chosen: Values, rest: CommandLine) -> ConfigLayer:
    layer = checkpoint_layer(command, opened)
    option = EVALUATED_FILES.get(command)
    names_files = rest.has(f"data.{option}") or (chosen.get("data") or {}).get(option) is not None
    return without_other_files(layer, option) if option and names_files else layer


def _require_data(description: ModelDescription, checkpoint: Path) -> None:
    for used in description.plugins:
        if used.kind == "data":
            used.require(checkpoint)


def _suggest_task(line: CommandLine) -> str:
    """Suggest the flag for a task that is named without one, or list the tasks that have training."""
    names = [registry().short_name(entry) for entry in registry().entries("task") if entry.spec.data is not None]
    hints = (suggest_argument(word, ["--task"]) for word in line.words if word in names)
    return next(hints, None) or f"known: {', '.join(names)}"
