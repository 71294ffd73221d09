"""The flags of ``fit``, ``validate``, ``test`` and ``predict``: one for each argument of the chosen classes."""

from __future__ import annotations

import contextlib
import copy
import inspect
import itertools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

import jsonargparse
import yaml
from jsonargparse import Namespace
from pytorch_lightning import LightningDataModule, Trainer

from perceiver_cli import allowed
from perceiver_cli.common import COMMON_HELP
from perceiver_cli.fields import OF_THE_RUN
from perceiver_cli.layers import OF_PREDICTION, OF_TRAINER, Run
from perceiver_cli.library_errors import missing_package
from perceiver_cli.links import linked_fields
from perceiver_cli.names import quote_names, refuse_other_scalars
from perceiver_cli.serialization import NOT_SERIALIZED, with_plain_enums, with_serialized
from perceiver_cli.suggestions import suggest_argument, suggest_flag, suggest_name
from perceiver_cli.values import KINDS, NAME_KEYS, Values, flatten, name_of, nest
from perceiver_registry import UserError, registry
from perceiver_registry.configs import config_types
from perceiver_registry.plain_data import PlainDataError, check_yaml

OF_SOURCE = {
    "fit": 'a checkpoint to go on with, or "last" or "best" of the newest run',
    "predict": 'a checkpoint, a folder or a hub id of a model, or "last" or "best" of the newest run; none: the '
    "published model of the task or name",
} | dict.fromkeys(
    ("validate", "test"), 'a checkpoint, a folder or a hub id of a model, or "last" or "best" of the newest run'
)
"""What ``--ckpt_path`` takes in each command."""

OPEN_ENDED = ("trainer.logger", "trainer.callbacks", "trainer.plugins", "trainer.strategy", "trainer.profiler")
"""Arguments that take any class: the keys below them are those of the class, which only the parser knows."""


class RefusedError(UserError):
    """A value names what it must not.

    Args:
        flag: the flag of the value.
        path: the dotted path that is refused.
        given: what the value says, where it is not that path but leads to it.
    """

    def __init__(self, flag: str, path: str, given: str):
        super().__init__(f"{flag}: {allowed.refusal(path)}")
        self.given = given


class Parser(jsonargparse.ArgumentParser):
    """An argument parser whose errors are one line that says which name is near."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = re.search(r"[Uu]nrecognized arguments: (\S+)", message)
        if unknown:
            raise UserError(self._unknown(unknown.group(1))) from ex
        line = " ".join(message.replace("Parser key", "").split())
        key = re.match(r'\s*"([\w.]+)":', line)
        flag = f"--{key.group(1)}" if key else "a value"
        self._check_refused(flag, line, ex)
        missing = missing_package(line)
        if missing is not None:
            raise UserError(f"{flag}: {missing}" if key else missing) from ex
        if key and "Union subtypes" in line:
            raise UserError(f"{flag}{_reason(message)}") from ex
        raise UserError((line.replace(key.group(0), f"{flag}:", 1) if key else line)[:400]) from ex

    @staticmethod
    def _check_refused(flag: str, line: str, ex: Exception | None) -> None:
        # The second is what a refusal has become within the list of all that was tried.
        refused = re.search(r"Importing '([\w.]+)' is not allowed|([\w.]+) is refused", line)
        if refused:
            path = refused.group(1) or refused.group(2)
            given = re.search(r"Problem with given class_path '(\S+)'", line)
            file = re.search(r"Unable to load config '([^']+)'", line)
            where = f"{flag}={file.group(1)}" if file else flag
            raise RefusedError(where, path, given.group(1) if given else path) from ex

    def _unknown(self, argument: str) -> str:
        flags = {f"--{name}" for name in self.names()}
        flag = argument.partition("=")[0]
        if not argument.startswith("-"):
            hint = suggest_argument(argument, flags) or "settings are written --NAME=VALUE"
            return f"unexpected argument {argument!r}: {hint}"
        return f"unknown flag {flag}; {suggest_flag(flag, flags, listed={each.partition('.')[0] for each in flags})}"

    def names(self) -> set[str]:
        """The dotted names of all flags."""
        return {action.dest for action in self._actions if action.option_strings}

    def hints(self) -> dict[str, Any]:
        """The types of all flags, by their dotted names."""
        return {
            action.dest: getattr(action, "_typehint", None) or action.type
            for action in self._actions
            if action.option_strings
        }

    def leaves(self) -> set[str]:
        """Those of them that have no flags below them."""
        names = self.names()
        return names - {name.rpartition(".")[0] for name in names}


def _reason(message: str) -> str:
    """What is wrong with a value, of pages that list each type that it could have had."""
    problem = re.search(r"Problem with given class_path '(\S+)':\s+(.+)", message)
    if problem:
        return f": {problem.group(1)}: {problem.group(2)}"
    missing = re.search(r"the following arguments are required: ([\w.]+)", message)
    if missing:
        return f".{missing.group(1)} is missing"
    given = re.findall(r"(?:Got|Given) value: (\S+)", message)
    return f": {given[-1] if given else 'this'} is not a value that it takes; see --help"


def build_parser(command: str, run: Run) -> Parser:
    """The parser of what :func:`~perceiver_cli.layers.read_run` left over.

    Args:
        command: the subcommand.
        run: what is to be run; its names decide which flags there are.

    Raises:
        UserError: if an optimizer, a schedule or a class cannot be found.
    """
    allowed.enforce()
    inputs = "[INPUT ...] " if command == "predict" else ""
    parser = Parser(
        prog=f"perceiver {command}",
        usage=f"perceiver {command} {inputs}[--flag=value ...]",
        description="Flags win over config files, these over the checkpoint, and that over the defaults shown here.",
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file of settings; may be given several times")
    parser.add_argument("--ckpt_path", type=str | None, help=OF_SOURCE[command])
    if command == "predict":
        _add_flags_of_prediction(parser, run)
        return parser
    parser.add_argument("--seed_everything", type=int, default=0, help="seed of all random numbers")
    if command == "fit":
        parser.add_argument(
            "--checkpoint.every_n_steps",
            type=int,
            default=200,
            help="optimizer steps between two updates of last.ckpt; 0: only after validations and at the end",
        )
    for section, key in NAME_KEYS.items():
        parser.add_argument(f"--{section}.{key}", type=str | None, help=_choices(section))
    if run.task is not None:
        _add_sections(parser, run)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False)
    return parser


def _add_flags_of_prediction(parser: Parser, run: Run) -> None:
    parser.add_argument("inputs", nargs="*", type=str, help="what to predict for; '-' or none: standard input")
    parser.add_argument("--input", type=str | None, help="a file of inputs, one a line")
    parser.add_argument(
        "--delimiter", type=str | None, help="character between the columns of tables; none: as in training"
    )
    parser.add_argument(
        "--format",
        type=Literal["table", "csv", "json", "jsonl"],
        help="form of the output; none: a table, or as the suffix of --output says",
    )
    parser.add_argument(
        "--output",
        type=str | None,
        help="a file to write predictions to (.csv, .json, .jsonl), or a folder for what the task draws of them, as "
        "optical flow does; none: predictions are printed",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file of --output if it is there")
    parser.add_argument(
        "--quantize",
        type=Literal["int8"] | None,
        help="multiply 8-bit integers: faster on CPUs, and not exact; none: as the model was trained",
    )
    for section in OF_PREDICTION:
        parser.add_argument(f"--{section}.{NAME_KEYS[section]}", type=str | None, help=_choices(section))
    if run.task is None:
        parser.epilog = (
            "A task adds flags of its own, such as --top_k: perceiver predict --ckpt_path=... --help, or --task=NAME "
            "--help, shows them too."
        )
    elif run.task.spec.predictor:
        _add(parser, run.task.resolve("predictor"), None, skip={"module", "reader", "output"})
    others = {name for name in inspect.signature(Trainer).parameters if name not in OF_TRAINER}
    parser.add_class_arguments(Trainer, "trainer", skip=others, instantiate=False)


def _add_sections(parser: Parser, run: Run) -> None:
    assert run.task is not None
    module = run.task.resolve("module")
    _add(parser, module, "task", skip=OF_THE_RUN)
    encoder, decoder = (name_of(run.values, f"model.{part}") for part in ("encoder", "decoder"))
    if encoder is None or decoder is None:
        raise UserError(f"task {run.task.name!r} has no default adapters: give --model.encoder and --model.decoder")
    for section, config_type in config_types(encoder, decoder).items():
        _add(parser, config_type, section, skip={"encoder", "decoder"})
    # A value that is not given is taken from the data.
    parser.set_defaults({f"{section}.{field}": None for section, field, _ in linked_fields(run.values)})
    _add(parser, data_class(name_of(run.values, "data") or run.task.spec.data), "data")
    optimizer, lr_scheduler = name_of(run.values, "optimizer"), name_of(run.values, "lr_scheduler")
    if optimizer is not None:
        _add(parser, module.find_optimizer(optimizer), "optimizer", skip={"params"})
        parser.add_argument(
            "--optimizer.in_backward",
            type=bool,
            default=False,
            help="step inside the backward pass, which saves the memory of the gradients; on one device, and without "
            "clipping and accumulation",
        )
    if lr_scheduler is not None:
        _add(parser, module.find_lr_scheduler(lr_scheduler), "lr_scheduler", skip={"optimizer"})
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
    if section not in KINDS:
        return f"also --{section}=NAME, a class of torch or timm; none: without"
    names = ", ".join(entry.name for entry in registry().entries(KINDS[section]))  # type: ignore[call-overload]
    return f"also --{section}=NAME; known: {names}"


def choices_of(parser: Parser, run: Run) -> dict[str, list[str]]:
    """The flags of a parser, each with the values that it may have; none where any may be given."""
    choices = {
        f"--{action.dest}": _values_of(getattr(action, "_typehint", None) or action.type)
        for action in parser._actions
        if action.option_strings and not re.search(r"\b(help|print_config)$", action.dest)
    }
    for section, key in NAME_KEYS.items():
        if f"--{section}.{key}" in choices:
            choices[f"--{section}"] = choices.pop(f"--{section}.{key}")
    if run.task is not None and "--optimizer" in choices:
        module = run.task.resolve("module")
        choices["--optimizer"] = [*module.known_optimizers()]
        choices["--lr_scheduler"] = [*module.known_lr_schedulers(), "none"]
    return choices


def _values_of(hint: Any) -> list[str]:
    if hint is bool:
        return ["true", "false"]
    if hint is type(None):
        return ["null"]
    if inspect.isclass(hint) and issubclass(hint, Enum):
        return [each.name for each in hint]
    if get_origin(hint) is Literal:
        return [str(each) for each in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        values = [value for each in get_args(hint) for value in _values_of(each)]
        return [] if values == ["null"] else values  # as if nothing else were possible
    return []


def data_class(name: str) -> Any:
    """The data module of a registered name or a dotted path.

    Raises:
        UserError: if there is none, or if the path is not allowed.
    """
    entry = registry().find("data", name)
    if entry is not None:
        return entry.resolve("module")
    parser = Parser(exit_on_error=False)
    parser.add_argument("--data", type=type[LightningDataModule])
    try:
        return parser.parse_args([f"--data={name.replace(':', '.')}"]).data
    except ImportError as error:  # of a package that is allowed
        raise UserError(f"--data={name}: cannot be imported: {error}") from error


def known_values(parser: Parser, run: Run) -> Values:
    """The run's values, by dotted name, that the parser has flags for."""
    names = parser.names()
    return {
        key: value
        for key, value in flatten(run.values, parser.leaves()).items()
        if key in names or key.startswith(OPEN_ENDED)
    }


def print_help(parser: Parser, run: Run) -> None:
    """Prints the flags with the defaults that they have in this run."""
    values = known_values(parser, run)
    parser.set_defaults({key: value for key, value in values.items() if key in parser.names()})
    print(parser.format_help().replace(" \b", ""), end="")  # jsonargparse takes back a space like that
    print(f"\n{COMMON_HELP}")


def parse(parser: Parser, run: Run) -> Values:
    """Parses the flags over the values of the other layers.

    Returns:
        All values, nested, of plain data.

    Raises:
        UserError: if a key or flag is unknown, or a value is not of its type.
    """
    names = parser.names()
    kept = flatten(run.values, parser.leaves())  # without the options of what a later layer replaced
    for path, values in run.config_files.items():
        for key in flatten(values, parser.leaves()):
            if key in kept and key not in names and not key.startswith(OPEN_ENDED):
                raise UserError(f"--config={path}: unknown key {key!r}; {suggest_name(key, names)}")
        refuse_other_scalars(f"--config={path}", flatten(values, parser.leaves()), parser.hints())
    for flag, value in flag_values(run.flags):
        check_flag_value(flag, value)
    flags = quote_names(run.flags, parser.hints())
    config = parser.parse_args(["--config", yaml.safe_dump(nest(known_values(parser, run))), *flags])
    config.pop("config", None)
    # Options of the trainer's classes may be of any type, such as a strategy's timeout.
    given = with_plain_enums(config.trainer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"{NOT_SERIALIZED}.*")
        dumped = parser.dump(Namespace(trainer=given), skip_unset=False, skip_validation=True)
    return config.as_dict() | {"trainer": with_serialized(yaml.safe_load(dumped)["trainer"], given.as_dict())}


def check_flag_value(flag: str, value: str) -> None:
    """Check the value of a flag, which may be written in YAML, against the limits of plain data.

    Raises:
        UserError: if it is beyond them.
    """
    try:
        check_yaml(value)
    except yaml.YAMLError:  # a text like any other, which the parser judges
        return
    except PlainDataError as error:
        raise UserError(f"{flag}: {error}") from error


def flag_values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Flags with their values, which are written with "=" or as the next word. Other words are skipped."""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            yield flag, value if equals else following


@contextlib.contextmanager
def naming_source(run: Run) -> Iterator[None]:
    """Says of a value that is refused within this context whether a config file or a checkpoint brought it."""
    try:
        yield
    except RefusedError as error:
        source = _source(error.given, run)
        if source is None:
            raise
        message = f"{source}: {error}"
        if run.description is not None and source == str(run.checkpoint):
            message = run.description.explain(message, source)
        raise UserError(message) from error


def _source(value: str, run: Run) -> str | None:
    for path, values in run.config_files.items():
        if value in str(values):
            return f"--config={path}"
    if run.description is not None and value in str(run.description.run):
        return str(run.checkpoint)
    return None


def trainer_options(values: Mapping[str, Any]) -> Values:
    """The arguments for ``Trainer``, loggers and callbacks as objects, of ``values``, in which they are plain data."""
    parser = Parser(exit_on_error=False)
    parser.add_class_arguments(Trainer, "trainer", instantiate=False)
    config = parser.parse_object({"trainer": copy.deepcopy(dict(values))}, defaults=False)  # it changes its argument
    return {**values, **vars(parser.instantiate(config)["trainer"])}
