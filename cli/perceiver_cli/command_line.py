"""Parsing of a command line into flags and words, before the known flags are determined."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from perceiver_cli.values import NAME_KEYS
from perceiver_registry import UserError

FLAG = re.compile(r"(?P<dashes>--?)(?P<name>[A-Za-z_][\w.+-]*)(?P<equals>=(?P<value>.*))?", re.DOTALL)
"""Flag: "--name", "--name=value" or, with a missing dash, "-name". Does not match negative numbers."""

SWITCHES = ("help", "overwrite", "print_config")
"""Flags that take no value."""


@dataclass(frozen=True)
class Flag:
    """A flag of a command line.

    Attributes:
        name: dotted name: "data.batch_size", "trainer.callbacks+"; "-lr" for a flag with a single dash.
        value: text of the value. None: no value.
    """

    name: str
    value: str | None = None

    @property
    def written(self) -> str:
        """The flag with dashes and without its value."""
        return self.name if self.name.startswith("-") else f"--{self.name}"

    @property
    def word(self) -> str:
        """The flag with its value, as one word."""
        return self.written if self.value is None else f"{self.written}={self.value}"


@dataclass(frozen=True)
class CommandLine:
    """Arguments after a subcommand.

    Attributes:
        flags: the flags, in order.
        words: positional arguments.
    """

    flags: tuple[Flag, ...] = ()
    words: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Return whether a flag is given."""
        return any(flag.name == name for flag in self.flags)

    def texts(self, name: str) -> list[str]:
        """Return the values of all flags with a name.

        Raises:
            UserError: if one of them has no value.
        """
        return [value_of(flag) for flag in self.flags if flag.name == name]

    def text(self, name: str) -> str | None:
        """Return the value of the last flag with a name; None if it is not given.

        Raises:
            UserError: if one of them has no value.
        """
        return next(reversed(self.texts(name)), None)

    def without(self, names: Iterable[str]) -> CommandLine:
        """Return the command line without the flags with these names."""
        removed = set(names)
        return CommandLine(tuple(flag for flag in self.flags if flag.name not in removed), self.words)


def value_of(flag: Flag) -> str:
    """Return the value of a flag that requires one.

    Raises:
        UserError: if it has no value.
    """
    if flag.value is None:
        raise UserError(f"{flag.written}: value missing (write {flag.written}=VALUE)")
    return flag.value


def read_command_line(argv: Iterable[str]) -> CommandLine:
    """Parse the arguments after a subcommand.

    The value of a flag follows "=" or is the next word. All words after "--" are positional arguments.

    Raises:
        UserError: if a switch has a value.
    """
    flags: list[Flag] = []
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        found = FLAG.fullmatch(word)
        if word == "--":
            return CommandLine(tuple(flags), (*words, *rest))
        if found is None:
            words.append(word)
            continue
        name, value = _name(found), found["value"]
        if name in SWITCHES and value is not None:
            raise UserError(f"--{name}: takes no value")
        if name not in SWITCHES and value is None and rest and not _ends_value(rest[0]):
            value = rest.pop(0)
        flags.append(_normalised(Flag(name, value)))
    return CommandLine(tuple(flags), tuple(words))


def refuse_single_dashes(line: CommandLine, names: Iterable[str]) -> None:
    """Check that flags with these names have two dashes.

    Raises:
        UserError: if one has a single dash; the message suggests two.
    """
    known = set(names)
    for flag in line.flags:
        if flag.name.startswith("-") and flag.name.lstrip("-") in known:
            raise UserError(f"{flag.word}: flags begin with two dashes (did you mean -{flag.word}?)")


def _name(found: re.Match[str]) -> str:
    if found["dashes"] == "--":
        return found["name"]
    return "help" if found["name"] == "h" else f"-{found['name']}"


def _ends_value(word: str) -> bool:
    return word == "--" or FLAG.fullmatch(word) is not None


def _normalised(flag: Flag) -> Flag:
    """Convert Lightning's ``--data.class_path=X --data.init_args.y=1`` to ``--data=X --data.y=1``."""
    if flag.name == "trainer.strategy" and re.fullmatch(r"[\w.]*Strategy", flag.value or ""):
        return Flag("trainer.strategy.class_path", flag.value)  # a class, not the name of a strategy such as ddp
    return Flag(_without_init_args(flag.name), flag.value)


def _without_init_args(name: str) -> str:
    for section, key in NAME_KEYS.items():
        if name in (f"{section}.class_path", f"{section}.{key}"):
            name = section
        elif name.startswith(f"{section}.init_args."):
            name = f"{section}.{name.removeprefix(f'{section}.init_args.')}"
    return name
