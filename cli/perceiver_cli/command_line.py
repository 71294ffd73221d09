"""Words of a command line as flags with their values, before it is known which flags there are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from perceiver_cli.values import NAME_KEYS
from perceiver_registry import UserError

FLAG = re.compile(r"(?P<dashes>--?)(?P<name>[A-Za-z_][\w.+-]*)(?P<equals>=(?P<value>.*))?", re.DOTALL)
"""A word that is a flag: "--name", "--name=value" or, with a dash too few, "-name". Negative numbers are no flags."""

SWITCHES = ("help", "overwrite", "print_config")
"""Flags without a value."""


@dataclass(frozen=True)
class Flag:
    """A flag of a command line.

    Attributes:
        name: its dotted name: "data.batch_size", "trainer.callbacks+"; with the dash if it has only one: "-lr".
        value: its text. None: it has none.
    """

    name: str
    value: str | None = None

    @property
    def written(self) -> str:
        """The flag with its dashes and without its value."""
        return self.name if self.name.startswith("-") else f"--{self.name}"

    @property
    def word(self) -> str:
        """The flag with its value, as one word."""
        return self.written if self.value is None else f"{self.written}={self.value}"


@dataclass(frozen=True)
class CommandLine:
    """What follows a subcommand.

    Attributes:
        flags: the flags in their order.
        words: what is no flag and no value of one.
    """

    flags: tuple[Flag, ...] = ()
    words: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Return whether a flag is given."""
        return any(flag.name == name for flag in self.flags)

    def texts(self, name: str) -> list[str]:
        """Return the values of all flags of a name.

        Raises:
            UserError: if one of them has none.
        """
        return [value_of(flag) for flag in self.flags if flag.name == name]

    def text(self, name: str) -> str | None:
        """Return the value of a flag, of the last one if it is given several times; None if it is not given.

        Raises:
            UserError: if it has none.
        """
        return next(reversed(self.texts(name)), None)

    def without(self, names: Iterable[str]) -> CommandLine:
        """Return the command line without the flags of these names."""
        left_out = set(names)
        return CommandLine(tuple(flag for flag in self.flags if flag.name not in left_out), self.words)


def value_of(flag: Flag) -> str:
    """Return the value of a flag that takes one.

    Raises:
        UserError: if it has none.
    """
    if flag.value is None:
        raise UserError(f"{flag.written}: a value is missing (write {flag.written}=VALUE)")
    return flag.value


def read_command_line(argv: Iterable[str]) -> CommandLine:
    """Read what follows a subcommand.

    The value of a flag follows "=", or is the next word. After "--" there are no flags.

    Raises:
        UserError: if a flag that takes no value has one.
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
        flags.append(_plain(Flag(name, value)))
    return CommandLine(tuple(flags), tuple(words))


def refuse_single_dashes(line: CommandLine, names: Iterable[str]) -> None:
    """Check that flags of these names have two dashes.

    Raises:
        UserError: if one has a single dash; the message shows the flag with two.
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


def _plain(flag: Flag) -> Flag:
    """Lightning's ``--data.class_path=X --data.init_args.y=1`` in this project's words."""
    if flag.name == "trainer.strategy" and re.fullmatch(r"[\w.]*Strategy", flag.value or ""):
        return Flag("trainer.strategy.class_path", flag.value)  # not the name of a strategy, such as ddp
    return Flag(_plain_name(flag.name), flag.value)


def _plain_name(name: str) -> str:
    for section, key in NAME_KEYS.items():
        if name in (f"{section}.class_path", f"{section}.{key}"):
            name = section
        elif name.startswith(f"{section}.init_args."):
            name = f"{section}.{name.removeprefix(f'{section}.init_args.')}"
    return name
