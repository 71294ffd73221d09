"""Flags of all subcommands, which select the plugins to load and the packages to allow. They are read first."""

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
options of all commands:
  --plugins=A,B   load only these installed plugins; none: load no installed plugin
                  (environment variable PERCEIVER_DISABLE_PLUGINS=A,B: load all but these)
  --plugin=FILE   load a plugin from a Python file; repeatable
  --allow=A,B     also accept classes of these packages in flags, config files and checkpoints
  --debug         show the traceback of an error"""


@dataclass(frozen=True)
class CommonFlags:
    """Values of the common flags.

    Attributes:
        plugins: names of the installed plugins to load. None: all.
        local_plugins: files of plugins that are not installed.
        allowed: packages with import paths to accept, besides those that are always allowed.
        debug: show tracebacks.
    """

    plugins: tuple[str, ...] | None = None
    local_plugins: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    debug: bool = False

    @contextlib.contextmanager
    def selecting(self) -> Iterator[None]:
        """Load only the selected plugins within this context, also in child processes."""
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
    """Split the common flags from a command line.

    Args:
        argv: arguments after the subcommand.

    Returns:
        The values of the common flags, and the remaining arguments.

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
    """Split comma-separated lists into names."""
    return [name.strip() for names in lists for name in names.split(",") if name.strip()]
