"""Flags that every subcommand takes. They are read first: they decide what is installed and what is allowed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from perceiver_registry import UserError

COMMON_HELP = """\
with any command:
  --plugins=A,B   load these plugins alone; none: no installed plugin
  --plugin=FILE   load a plugin from a file; may be given several times
  --allow=A,B     packages whose classes config files and checkpoints may name as well
  --debug         show the traceback of an error"""


@dataclass(frozen=True)
class CommonFlags:
    """What the common flags say.

    Attributes:
        plugins: names of the only plugins that are loaded besides local files; None: all that are installed.
        local_plugins: files of plugins that are not installed.
        allowed: packages whose classes config files and checkpoints may name besides those that are always allowed.
    """

    plugins: tuple[str, ...] | None = None
    local_plugins: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def read_common_flags(argv: Sequence[str]) -> tuple[CommonFlags, list[str]]:
    """Takes the common flags out of a command line.

    Args:
        argv: what follows the subcommand.

    Returns:
        What they say, and the rest of ``argv``.

    Raises:
        UserError: if a flag lacks its value.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("--debug", action="store_true")  # main() has looked for it already
    parser.add_argument("--plugins")
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--allow", action="append", default=[])
    given, rest = parser.parse_known_args(argv)
    plugins = None if given.plugins is None else tuple(_names([given.plugins]))
    if plugins == ("none",):
        plugins = ()
    return CommonFlags(plugins, tuple(given.plugin), tuple(_names(given.allow))), rest


def _names(lists: Sequence[str]) -> list[str]:
    """The names in comma-separated lists."""
    return [name.strip() for names in lists for name in names.split(",") if name.strip()]
