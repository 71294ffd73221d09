"""The ``perceiver`` command. A subcommand's imports happen when it runs: help and listings stay fast."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from perceiver_cli.allowed import allow
from perceiver_cli.commands import COMMANDS, Command
from perceiver_cli.common import COMMON_HELP, read_common_flags
from perceiver_cli.errors import WRONG_USE, guarded
from perceiver_cli.output import escaped_output
from perceiver_cli.paths import refuse_remote_arguments
from perceiver_cli.suggestions import suggest_command
from perceiver_registry import registry
from perceiver_registry.escaping import escape_line
from perceiver_registry.import_paths import resolve_import_path

USAGE = """\
usage: perceiver COMMAND [options]

A zoo of Perceiver models: any input x any output, from a config, in one command.

{commands}

options:
  --version       show the version and exit
  -h, --help      show this help and exit, also after a command

{common}

examples:
  perceiver fit --task=mlm
  perceiver fit --task=mlm --data=text-files --data.train_files=my.txt
  perceiver predict --ckpt_path=best "Return the [MASK][MASK][MASK][MASK][MASK] of the list."
  perceiver fit --task=mlm --help
"""


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Environment variables in which launchers set the rank of a process."""


def usage() -> str:
    """Return the help of the whole command."""
    groups = [
        "\n".join([f"{title}:", *(f"  {name:<15} {command.summary}" for name, command in commands.items())])
        for title, commands in COMMANDS.items()
    ]
    return USAGE.format(commands="\n\n".join(groups), common=COMMON_HELP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Args:
        argv: arguments after ``perceiver``. None: those of this process.

    Returns:
        0: success; 1: the run failed; 2: wrong use; 130: interrupted; 143: ended by SIGTERM or SIGHUP.
    """
    with escaped_output():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0 if argv else WRONG_USE
    if argv[0] == "--version":
        print(f"perceiver {version('perceiver-zoo')}")
        return 0
    name, *rest = argv
    commands = {name: command for group in COMMANDS.values() for name, command in group.items()}
    if name not in commands:
        print(f"perceiver: {name!r}: unknown command ({suggest_command(name, commands)})", file=sys.stderr)
        return WRONG_USE
    return guarded(lambda: _call(name, commands[name], rest), debug="--debug" in rest)


def _call(name: str, command: Command, argv: Sequence[str]) -> None:
    refuse_remote_arguments(name, argv)
    flags, rest = read_common_flags(argv)
    allow(flags.allowed)
    with flags.selecting():
        _report_failures(flags.debug)
        resolve_import_path(command.import_path)(name, rest)


def _report_failures(debug: bool) -> None:
    """Report failed and deprecated plugins, on the first process of a run only."""
    failures = registry().failures
    if any(os.environ.get(name, "0") != "0" for name in RANKS):
        return
    for loaded in failures:
        if debug:
            traceback.print_exception(loaded.error)
        print(escape_line(f"perceiver: {loaded} (perceiver plugins --debug shows the traceback)"), file=sys.stderr)
    for deprecation in filter(None, (loaded.deprecation for loaded in registry().plugins)):
        print(escape_line(f"perceiver: {deprecation}"), file=sys.stderr)
