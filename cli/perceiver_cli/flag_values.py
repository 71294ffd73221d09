"""Values of the flags that the parser knows: the highest layer of a configuration."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from perceiver_cli.command_line import CommandLine, Flag, value_of
from perceiver_cli.flags import OPEN_ENDED, Parser
from perceiver_cli.names import quote_names
from perceiver_cli.suggestions import suggest_argument, suggest_flag
from perceiver_cli.values import Values
from perceiver_registry import UserError
from perceiver_registry.option_types import has_options
from perceiver_registry.plain_data import PlainDataError, check_yaml


@dataclass(frozen=True)
class FlagValues:
    """Flags of a command line, by the options that they set.

    The flag of a class (``--trainer.logger=CSVLogger``) and those of its options (``--trainer.logger.save_dir=x``) form
    one composed value, which jsonargparse merges into the value of the layers below. All other flags are single values.

    Attributes:
        values: texts of the single values, by dotted name; True for a switch.
        parts: flags of composed values, in order, each after the name of the option that it belongs to.
    """

    values: Values
    parts: list[tuple[str, Flag]]

    @property
    def composed(self) -> set[str]:
        """Names of the options with composed values."""
        return {name for name, _ in self.parts}

    def words(self, below: Values) -> list[str]:
        """Return the flags of composed values as words, after flags that set the values of the layers below.

        Args:
            below: values of the layers below.
        """
        base = {name: value for name in self.composed if (value := _value_at(below, name)) is not None}
        written = [Flag(name, json.dumps(value, default=str)) for name, value in base.items()]
        return [flag.word for flag in (*written, *(flag for _, flag in self.parts))]

    def sketches(self, below: Values) -> Values:
        """Return approximations of the composed values by dotted name, for messages."""
        values = {name: copy.deepcopy(_value_at(below, name)) for name in self.composed}
        for name, flag in self.parts:
            values[name] = _with_part(values[name], flag.name.removeprefix(name).removeprefix("."), flag.value or "")
        return values


def read_flag_values(parser: Parser, line: CommandLine) -> FlagValues:
    """Assign each flag of a command line to the option that it sets.

    Args:
        parser: the known flags.
        line: the command line.

    Raises:
        UserError: if a flag is unknown, lacks its value, or has one beyond the limits of plain data.
    """
    hints, helps, switches = parser.hints(), parser.help_names(), parser.switches()
    named = [(_option_of(flag, parser), flag) for flag in line.flags]
    for name, flag in named:
        if name in helps:
            parser.parse_args([flag.word])  # prints the help of a class and exits
        elif name not in switches:
            _check_text(flag)
    composed = {name for name, flag in named if name in OPEN_ENDED or flag.name != name}
    values = {name: _value(flag, hints[name]) for name, flag in named if name not in composed}
    return FlagValues(values, [(name, flag) for name, flag in named if name in composed])


def refuse_words(parser: Parser, line: CommandLine) -> None:
    """Check that a command line has only flags and their values.

    Raises:
        UserError: if it has another word; the message suggests the intended flag.
    """
    for word in line.words:
        hint = suggest_argument(word, {f"--{name}" for name in parser.names()}) or "write options as --NAME=VALUE"
        raise UserError(f"{word!r}: unexpected argument ({hint})")


def _option_of(flag: Flag, parser: Parser) -> str:
    """Return the option that a flag sets, as a whole or in part."""
    names, hints = parser.names(), parser.hints()
    name = flag.name.removesuffix("+")
    if flag.name in names or (name in names and parser.appends(name)):
        return name
    while "." in name:
        name = name.rpartition(".")[0]
        if hints.get(name) is not None and has_options(hints[name]):
            return name
    flags = {f"--{each}" for each in names}
    sections = {each.partition(".")[0] for each in flags}
    raise UserError(f"{flag.written}: unknown flag ({suggest_flag(flag.written, flags, listed=sections)})")


def _check_text(flag: Flag) -> None:
    """Check the value of a flag, which may be YAML, against the limits of plain data."""
    try:
        check_yaml(value_of(flag))
    except yaml.YAMLError:  # plain text, converted later
        return
    except PlainDataError as error:
        raise UserError(f"{flag.written}: {error}") from error


def _value(flag: Flag, hint: Any) -> Any:
    return True if flag.value is None else quote_names(flag.value, hint)


def _with_part(value: Any, option: str, text: str) -> Any:
    """Add a flag to a composed value: the class, one more class of a list, or an option of the last class."""
    if option == "":
        return _loaded(text)
    if option == "+":
        return [*(value if isinstance(value, list) else []), _loaded(text)]
    if isinstance(value, list):
        return [*value[:-1], _with_part(value[-1] if value else None, option, text)]
    spec: dict[str, Any] = {"class_path": value} if isinstance(value, str) else dict(value or {})
    if option == "class_path":
        return spec | {"class_path": text}
    return spec | {"init_args": {**(spec.get("init_args") or {}), option.removeprefix("init_args."): _loaded(text)}}


def _loaded(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


def _value_at(values: Mapping[str, Any], name: str) -> Any:
    node: Any = values
    for key in name.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node
