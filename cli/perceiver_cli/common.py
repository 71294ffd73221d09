"""Flags that every subcommand takes. They are read first: they decide what is loaded and what is allowed."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from perceiver_registry import UserError
from perceiver_registry.discovery import NO_PLUGIN, Selection

COMMON_HELP = """\
with any command:
  --plugins=A,B   load these plugins alone; none: no installed plugin
                  (PERCEIVER_DISABLE_PLUGINS=A,B in the environment: all but these)
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
        debug: whether to show tracebacks.
    """

    plugins: tuple[str, ...] | None = None
    local_plugins: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    debug: bool = False

    @contextlib.contextmanager
    def selecting(self) -> Iterator[None]:
        """Lets this process, and those that it starts, load the plugins that are selected, and no others."""
        selection = Selection.of_environment()
        if self.plugins is not None:
            selection = replace(selection, only=self.plugins)
        files = [str(Path(file).expanduser().absolute()) for file in self.local_plugins]
        selection = replace(selection, files=tuple(dict.fromkeys([*selection.files, *files])))
        before = dict(os.environ)
        os.environ.update(selection.as_environment())
        try:
            yield
        finally:
            for name in selection.as_environment():
                os.environ.pop(name)
                if name in before:
                    os.environ[name] = before[name]


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
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("--plugins")
    parser.add_argument("--plugin", action="append", default=[])
    parser.add_argument("--allow", action="append", default=[])
    given, rest = parser.parse_known_args(argv)
    plugins = None if given.plugins is None else tuple(_names([given.plugins]))
    if plugins == (NO_PLUGIN,):
        plugins = ()
    return CommonFlags(plugins, tuple(given.plugin), tuple(_names(given.allow)), given.debug), rest


def _names(lists: Sequence[str]) -> list[str]:
    """The names in comma-separated lists."""
    return [name.strip() for names in lists for name in names.split(",") if name.strip()]
