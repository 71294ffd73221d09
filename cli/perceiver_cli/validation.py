"""From layers and flags to one validated configuration of plain data."""

from __future__ import annotations

import copy
import json
import warnings
from argparse import ArgumentError
from collections.abc import Mapping
from typing import Any

import yaml
from jsonargparse import Namespace

from perceiver_cli.command_line import CommandLine, Flag, value_of
from perceiver_cli.flags import OPEN_ENDED, Parser, known_values
from perceiver_cli.layers import layer_with
from perceiver_cli.names import quote_names, refuse_other_scalars
from perceiver_cli.parser_errors import explain
from perceiver_cli.run_config import Run
from perceiver_cli.serialization import NOT_SERIALIZED, with_plain_enums, with_serialized
from perceiver_cli.suggestions import suggest_argument, suggest_flag, suggest_name
from perceiver_cli.values import Values, flatten, nest
from perceiver_registry import UserError
from perceiver_registry.option_types import has_options
from perceiver_registry.plain_data import PlainDataError, check_yaml

WORDS = "inputs"
"""Option of the words of a command line that are no flags."""


def validate(parser: Parser, run: Run) -> Values:
    """Merge the layers and the flags, and convert each value to the type of its flag.

    Args:
        parser: the flags that there are.
        run: what is to be run.

    Returns:
        All values, nested, of plain data.

    Raises:
        UserError: if a key or flag is unknown, or a value is not of its type; the message names the flag, or the file
            and the line.
    """
    hints = parser.hints()
    _check_files(parser, run, hints)
    flags = Flags(parser, run.line, hints)
    values = {name: value for name, value in known_values(parser, run).items() if name not in flags.composed}
    values |= flags.values | {WORDS: []} if WORDS in hints else flags.values
    try:
        config = parser.parse_object(copy.deepcopy(nest(values)), defaults=False)  # it changes its argument
        config = parser.parse_args(flags.words(run.values), namespace=config)
    except ArgumentError as error:
        given = {**flags.described(run.values), **values}
        fault = explain(error, given, hints, parser.required(), lambda name: _locate(name, run))
        if run.source and run.description and str(fault).startswith(run.source):
            fault = UserError(run.description.explain(str(fault), run.source))
        raise fault from error
    return _as_plain(parser, config) | ({WORDS: list(run.line.words)} if WORDS in hints else {})


class Flags:
    """The flags of a command line that were not read as names.

    The flag of a class, such as ``--trainer.logger=CSVLogger``, and those of its options, such as
    ``--trainer.logger.save_dir=x``, are one value together, which jsonargparse composes on top of the value below them.
    All other flags are values of their own.

    Args:
        parser: the flags that there are.
        line: the command line.
        hints: the types of the flags, by dotted name.

    Attributes:
        values: the texts of the flags with values of their own, by dotted name.
        composed: the names of the flags that classes and their options make up together.

    Raises:
        UserError: if a flag is unknown, lacks its value, or has one beyond the limits of plain data.
    """

    def __init__(self, parser: Parser, line: CommandLine, hints: Mapping[str, Any]):
        self._named = [(flag, _option_of(flag, parser, hints)) for flag in line.flags]
        if line.words and WORDS not in hints:
            _refuse_word(line.words[0], parser)
        for flag, _ in self._named:
            if flag.name in parser.help_names():
                parser.parse_args([flag.word])  # prints the help of a class, and exits
            _check_text(flag, parser)
        self.hints = hints
        self.composed = {name for flag, name in self._named if name in OPEN_ENDED or flag.name != name}
        self.values = {
            name: True if flag.value is None else quote_names(flag.value, hints[name])
            for flag, name in self._named
            if name not in self.composed
        }

    def words(self, below: Values) -> list[str]:
        """The composed flags as words, after those that write the values below them."""
        base = {name: value for name in self.composed if (value := _value_at(below, name)) is not None}
        written = [Flag(name, json.dumps(value, default=str)) for name, value in base.items()]
        return [flag.word for flag in (*written, *(flag for flag, name in self._named if name in self.composed))]

    def described(self, below: Values) -> Values:
        """The composed values as far as they can be told without jsonargparse, by dotted name, for messages."""
        values = {name: copy.deepcopy(_value_at(below, name)) for name in self.composed}
        for flag, name in self._named:
            if name in self.composed:
                values[name] = _with_flag(values[name], flag, flag.name.removeprefix(name).removeprefix("."))
        return values


def _with_flag(value: Any, flag: Flag, option: str) -> Any:
    """A value of a class with one more flag: the class itself, or one of its options."""
    text = flag.value or ""
    if option in ("", "+"):
        given = _loaded(text)
        return [*(value if isinstance(value, list) else []), given] if option else given
    target = value[-1] if isinstance(value, list) and value else value
    target = {"class_path": target} if isinstance(target, str) else dict(target or {})
    if option == "class_path":
        target["class_path"] = text
    else:
        target["init_args"] = {**(target.get("init_args") or {}), option.removeprefix("init_args."): text}
    return [*value[:-1], target] if isinstance(value, list) else target


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


def _value_at(values: Values, name: str) -> Any:
    node: Any = values
    for key in name.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _locate(name: str, run: Run) -> str:
    """Name an option with the source of its value."""
    given = [flag.name.removesuffix("+") for flag in run.line.flags]
    is_flag = any(f"{each}.".startswith(f"{name}.") or f"{name}.".startswith(f"{each}.") for each in given)
    return f"--{name}" if is_flag else layer_with(run.layers, name).locate(name)


def _check_files(parser: Parser, run: Run, hints: Mapping[str, Any]) -> None:
    """Check that the keys of config files are flags, and that YAML left their texts as they are."""
    names, leaves = parser.names(), parser.leaves()
    kept = flatten(run.values, leaves)  # without the options of what a later layer replaced
    for layer in run.user:
        if not layer.is_file:
            continue
        values = flatten(layer.values, leaves)
        for key in values:
            if key in kept and key not in names:
                raise UserError(f"{layer.line_of(key)}: unknown key {key!r}; {suggest_name(key, names)}")
        refuse_other_scalars(layer, values, hints)


def _option_of(flag: Flag, parser: Parser, hints: Mapping[str, Any]) -> str:
    """The option that a flag sets, or of whose value it sets a part."""
    if flag.name in hints:
        return flag.name
    name = flag.name.removesuffix("+")
    if name in hints and parser.appends(name):
        return name
    while "." in name:
        name = name.rpartition(".")[0]
        if hints.get(name) is not None and has_options(hints[name]):
            return name
    flags = {f"--{each}" for each in hints}
    raise UserError(
        f"unknown flag {flag.written}; "
        f"{suggest_flag(flag.written, flags, listed={each.partition('.')[0] for each in flags})}"
    )


def _refuse_word(word: str, parser: Parser) -> None:
    hint = suggest_argument(word, {f"--{name}" for name in parser.names()}) or "settings are written --NAME=VALUE"
    raise UserError(f"unexpected argument {word!r}: {hint}")


def _check_text(flag: Flag, parser: Parser) -> None:
    """Check the value of a flag, which may be written in YAML, against the limits of plain data."""
    if flag.name in parser.switches():
        return
    try:
        check_yaml(value_of(flag))
    except yaml.YAMLError:  # a text like any other, which is converted later
        return
    except PlainDataError as error:
        raise UserError(f"{flag.written}: {error}") from error


def _as_plain(parser: Parser, config: Namespace) -> Values:
    """Parsed values as nested plain data."""
    config.pop("config", None)
    # Options of the trainer's classes may be of any type, such as a strategy's timeout.
    given = with_plain_enums(config.trainer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", f"{NOT_SERIALIZED}.*")
        dumped = parser.dump(Namespace(trainer=given), skip_unset=False, skip_validation=True)
    return config.as_dict() | {"trainer": with_serialized(yaml.safe_load(dumped)["trainer"], given.as_dict())}
