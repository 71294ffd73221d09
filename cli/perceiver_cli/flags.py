"""Flags of ``fit``, ``validate``, ``test``, ``predict`` and ``embed``: one for each argument of the chosen classes."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import jsonargparse
from pytorch_lightning import Trainer

from perceiver_cli import allowed
from perceiver_cli.checkpoints import BestModel
from perceiver_cli.common import COMMON_HELP
from perceiver_cli.data_modules import data_class
from perceiver_cli.fields import section_arguments
from perceiver_cli.input_commands import COMMANDS_BY_NAME, InputCommand
from perceiver_cli.links import linked_fields
from perceiver_cli.predict_config import CHOOSING_NAMES, TRAINER_OPTIONS
from perceiver_cli.run_config import Run
from perceiver_cli.values import ARCHITECTURE, KINDS, NAME_KEYS, Values, architecture_of, flatten, name_of
from perceiver_registry import UserError, registry
from perceiver_registry.configs import PARTS, config_types
from perceiver_registry.errors import OWN_PACKAGES
from perceiver_registry.optimization import find_lr_scheduler, find_optimizer, lr_scheduler_names, optimizer_names
from perceiver_registry.option_types import choices

ANY_MODEL = "checkpoint, folder or hub id of the model; last, best: checkpoint of the newest run"

CKPT_PATH_HELP = {
    "fit": "checkpoint to resume from; last, best: checkpoint of the newest run",
    "validate": ANY_MODEL,
    "test": ANY_MODEL,
    **dict.fromkeys(COMMANDS_BY_NAME, f"{ANY_MODEL}; default: the published model of --task or --model"),
}
"""Help of ``--ckpt_path``, by command."""

GIVEN_TO_PREDICTORS = ("module", "reader")
"""Arguments of a predictor that are not command-line options."""

OPEN_ENDED = ("trainer.logger", "trainer.callbacks", "trainer.plugins", "trainer.strategy", "trainer.profiler")
"""Flags that take classes, whose options are flags with further dotted names."""


class Parser(jsonargparse.ArgumentParser):
    """Parser of a command's flags."""

    def names(self) -> set[str]:
        """Return the dotted names of all flags."""
        return {action.dest for action in self._flags()}

    def hints(self) -> dict[str, Any]:
        """Return the types of all flags and arguments, by dotted name; None for any text."""
        return {action.dest: getattr(action, "_typehint", None) or action.type for action in self._actions}

    def defaults(self) -> dict[str, Any]:
        """Return the defaults of all flags, by dotted name."""
        return {action.dest: action.default for action in self._flags()}

    def leaves(self) -> set[str]:
        """Return the names of the flags that are not sections of other flags; options of a class do not count."""
        names = self.names()
        sections = {name.rpartition(".")[0] for name in names}
        return names - sections | names.intersection(OPEN_ENDED)

    def required(self) -> list[str]:
        """Return the names of the required flags."""
        return [action.dest for action in self._flags() if action.required]

    def switches(self) -> set[str]:
        """Return the names of the flags that may have no value."""
        return {action.dest for action in self._flags() if action.nargs in (0, "?")}

    def help_names(self) -> set[str]:
        """Return the names of the flags that print the help of a class."""
        return {name for name in self.names() if name.endswith(".help")}

    def appends(self, name: str) -> bool:
        """Return whether a flag ``--NAME+`` appends to a list."""
        return f"--{name}+" in self._option_string_actions

    def hide_own_classes(self) -> None:
        """Remove this project's classes from the lists of known subclasses in the help: options create them."""
        for action in self._flags():
            listed = getattr(action, "extra_help", None)
            if listed is not None:
                action.extra_help = partial(_without_own_classes, listed)  # type: ignore[attr-defined]

    def prefer_integers(self) -> None:
        """Parse 1 as an integer where both ``int`` and ``float`` are allowed: one batch, not the fraction 1.0.

        typing caches unions regardless of order: Lightning's ``int | float | None`` becomes the ``float | int | None``
        of a library that was imported first, for example by a plugin.
        """
        for action in self._flags():
            hint = getattr(action, "_typehint", None)
            types = get_args(hint)
            if get_origin(hint) in (Union, UnionType) and int in types and float in types:
                ordered = sorted(types, key=lambda each: each is not int)
                action._typehint = Union[tuple(ordered)]  # type: ignore[attr-defined]  # noqa: UP007

    def _flags(self) -> list[argparse.Action]:
        return [action for action in self._actions if action.option_strings]


def _without_own_classes(listed: Callable[[], str]) -> str:
    title, colon, names = listed().partition(": ")
    shown = [name for name in names.split(", ") if name.partition(".")[0] not in OWN_PACKAGES]
    return f"{title}{colon}{', '.join(shown)}"


def build_parser(command: str, run: Run) -> Parser:
    """Build the parser of the flags that :func:`~perceiver_cli.run_config.read_run` did not read.

    Args:
        command: the subcommand.
        run: the run, whose names decide which flags exist.

    Raises:
        UserError: if an optimizer, a schedule or a class does not exist.
    """
    allowed.enforce()
    inputs = "[INPUT ...] " if command in COMMANDS_BY_NAME else ""
    parser = Parser(
        prog=f"perceiver {command}",
        usage=f"perceiver {command} {inputs}[--flag=value ...]",
        description=_description(command, run),
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="YAML file of options; repeatable, later files win")
    parser.add_argument("--ckpt_path", type=str | None, help=CKPT_PATH_HELP[command])
    if command in COMMANDS_BY_NAME:
        _add_flags_of_prediction(COMMANDS_BY_NAME[command], parser, run)
        return parser
    parser.add_argument("--seed_everything", type=int, default=0, help="seed of all random generators")
    parser.add_argument(
        "--result", type=str | None, help="file for metrics, checkpoints and duration, as JSON; default: not written"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --result file")
    if command == "fit":
        parser.add_argument(
            "--checkpoint.every_n_steps",
            type=int,
            default=200,
            help="optimizer steps between updates of last.ckpt; 0: only after validations and at the end",
        )
        parser.add_argument(
            "--checkpoint.best",
            type=BestModel,
            default="lowest-loss",
            help="model to save as best.ckpt: the one with the lowest validation loss, or the latest validated one",
        )
    for section, key in NAME_KEYS.items():
        parser.add_argument(f"--{section}.{key}", type=str | None, help=_choices(section))
    parser.add_argument(f"--{ARCHITECTURE}", type=str | None, help=f"known: {_known('architecture')}")
    if run.task is not None:
        _add_sections(parser, run)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False)
    parser.hide_own_classes()
    parser.prefer_integers()
    return parser


def _description(command: str, run: Run) -> str:
    description = COMMANDS_BY_NAME[command].description if command in COMMANDS_BY_NAME else ""
    return f"{description} {_precedence(command, run)}".lstrip()


def _precedence(command: str, run: Run) -> str:
    adapter = name_of(run.values, "model.encoder") if command == "fit" and run.checkpoint is None else None
    is_sized = adapter is not None and registry().get("input", adapter).spec.size_rule is not None
    note = " (some of the task's are chosen by the size of the data, and printed when training starts)"
    return f"Precedence: flags, config files, the checkpoint, then the defaults shown here{note if is_sized else ''}."


def _add_flags_of_prediction(command: InputCommand, parser: Parser, run: Run) -> None:
    parser.add_argument("inputs", nargs="*", type=str, help="inputs; '-', or no input at all: standard input")
    parser.add_argument("--input", type=str | None, help="file with one input per line")
    parser.add_argument("--delimiter", type=str | None, help="column separator of tables; default: as in training")
    parser.add_argument("--text_column", type=str | None, help="text column of tables; default: as in training")
    parser.add_argument(
        "--keep_columns",
        type=list[str] | None,
        help="columns of input tables to write with the predictions, such as [id]; default: none",
    )
    parser.add_argument(
        "--format",
        type=Literal[command.formats],
        help="output format; default: by the suffix of --output, or a table",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        help=command.output_help,
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing --output file")
    parser.add_argument(
        "--quantize",
        type=Literal["int8"] | None,
        help="quantize weights and activations: faster on CPUs, not exact; default: no quantization",
    )
    for section in CHOOSING_NAMES:
        parser.add_argument(f"--{section}.{NAME_KEYS[section]}", type=str | None, help=_choices(section))
    for name, description in command.flags.items():
        parser.add_argument(f"--{name}", type=str | None, help=description)
    predictor = command.find_predictor(run.task)
    if predictor is not None:
        _add(parser, predictor, None, skip={*GIVEN_TO_PREDICTORS, "output", "overwrite"})
    elif run.task is None:
        parser.epilog = (
            "Tasks add flags, such as --top_k: shown by perceiver predict --ckpt_path=... --help or --task=NAME --help."
        )
    others = {name for name in inspect.signature(Trainer).parameters if name not in TRAINER_OPTIONS}
    parser.add_class_arguments(Trainer, "trainer", skip=others, instantiate=False)


def _add_sections(parser: Parser, run: Run) -> None:
    assert run.task is not None
    _add(parser, run.task.resolve("module"), "task", skip=section_arguments())
    encoder, decoder = (name_of(run.values, f"model.{part}") for part in ("encoder", "decoder"))
    if encoder is None or decoder is None:
        raise UserError(f"--task={run.task.name}: no default adapters (give --model.encoder and --model.decoder)")
    types = config_types(encoder, decoder, architecture_of(run.values))
    for section, config_type in types.items():
        part = section.partition(".")[2]
        _add(parser, config_type, section, skip=types["model"].unused_fields(part) if part else PARTS)
    # Without a value, linked fields are taken from the data.
    parser.set_defaults({f"{section}.{field}": None for section, field, _ in linked_fields(run.values)})
    data = name_of(run.values, "data") or run.task.spec.data
    assert data is not None
    _add(parser, data_class(data, run.task.name, run.layers), "data")
    optimizer, lr_scheduler = name_of(run.values, "optimizer"), name_of(run.values, "lr_scheduler")
    if optimizer is not None:
        _add(parser, find_optimizer(optimizer), "optimizer", skip={"params"})
        parser.add_argument(
            "--optimizer.in_backward",
            type=bool,
            default=False,
            help="step inside the backward pass, which saves gradient memory; single device only, without gradient "
            "clipping and accumulation",
        )
        parser.add_argument(
            "--optimizer.layer_decay",
            type=float | None,
            help="ratio of each layer's learning rate to that of the next layer, such as 0.75 for fine-tuning; "
            "none: one rate for all layers",
        )
    if lr_scheduler is not None:
        _add(parser, find_lr_scheduler(lr_scheduler), "lr_scheduler", skip={"optimizer"})
        parser.add_argument(
            "--lr_scheduler.interval", type=Literal["step", "epoch"] | None, help="how often the schedule advances"
        )


def _add(parser: Parser, target: Callable[..., Any], section: str | None, skip: Iterable[str] = ()) -> None:
    # Optimizers of other packages do not declare all of their types, hence fail_untyped=False.
    if inspect.isclass(target):
        parser.add_class_arguments(target, section, skip={*skip}, instantiate=False, fail_untyped=False)
    else:
        parser.add_function_arguments(target, section, skip={*skip}, fail_untyped=False)


def _choices(section: str) -> str:
    if section == "data":
        return f"short: --data=NAME, or --data=PATH of your own files; known: {_known('data')}"
    if section not in KINDS:
        return f"short: --{section}=NAME, a class of torch or timm; none: disable"
    return f"short: --{section}=NAME; known: {_known(KINDS[section])}"


def _known(kind: str) -> str:
    return ", ".join(entry.name for entry in registry().entries(kind))  # type: ignore[call-overload]


def choices_of(parser: Parser, run: Run) -> dict[str, list[str]]:
    """Return the flags of a parser with their possible values; an empty list if any value is possible."""
    choices = {
        f"--{action.dest}": _listed(getattr(action, "_typehint", None) or action.type)
        for action in parser._actions
        if action.option_strings and not re.search(r"\b(help|print_config)$", action.dest)
    }
    for section, key in NAME_KEYS.items():
        if f"--{section}.{key}" in choices:
            choices[f"--{section}"] = choices.pop(f"--{section}.{key}")
    if run.task is not None and "--optimizer" in choices:
        choices["--optimizer"] = optimizer_names()
        choices["--lr_scheduler"] = [*lr_scheduler_names(), "none"]
    return choices


def _listed(hint: Any) -> list[str]:
    """Return the values that a type names; an empty list if it names null only."""
    values = choices(hint)
    return [] if values == ["null"] else values


def known_values(parser: Parser, run: Run) -> Values:
    """Return the values of a run that the parser has flags for, by dotted name."""
    names = parser.names()
    return {key: value for key, value in flatten(run.values, parser.leaves()).items() if key in names}


def print_help(parser: Parser, run: Run) -> None:
    """Print the flags, with their values in this run as defaults."""
    values = known_values(parser, run)
    for name in OPEN_ENDED:
        if isinstance(values.get(name), Mapping):  # jsonargparse would import the class
            del values[name]
    parser.set_defaults(values)
    print(parser.format_help().replace(" \b", ""), end="")  # jsonargparse emits " \b"
    print(f"\n{COMMON_HELP}")
