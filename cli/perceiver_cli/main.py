"""The ``perceiver`` command. Imports what a subcommand needs when it runs, so that help and listings answer at once."""

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
"""Environment variables by which launchers number the processes of a run."""


def usage() -> str:
    """The help of the whole command."""
    groups = [
        "\n".join([f"{title}:", *(f"  {name:<15} {command.summary}" for name, command in commands.items())])
        for title, commands in COMMANDS.items()
    ]
    return USAGE.format(commands="\n\n".join(groups), common=COMMON_HELP)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (None: that of the process) and returns the exit code.

    0: done; 1: the run failed; 2: wrong use; 130: interrupted; 143: ended by SIGTERM or SIGHUP.
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
        print(f"perceiver: unknown command {name!r}; {suggest_command(name, commands)}", file=sys.stderr)
        return WRONG_USE
    return guarded(lambda: _call(name, commands[name], rest), debug="--debug" in rest)


def _call(name: str, command: Command, argv: Sequence[str]) -> None:
    refuse_remote_arguments(name, argv)
    flags, rest = read_common_flags(argv)
    allow(flags.allowed)
    with flags.selecting():
        _report_failures(flags.debug)
        resolve_import_path(command.place)(name, rest)


def _report_failures(debug: bool) -> None:
    """Says which plugins failed or are deprecated, unless another one of a run's several processes says it."""
    failures = registry().failures
    if any(os.environ.get(name, "0") != "0" for name in RANKS):
        return
    for loaded in failures:
        if debug:
            traceback.print_exception(loaded.error)
        print(escape_line(f"perceiver: {loaded} (perceiver plugins --debug shows where)"), file=sys.stderr)
    for deprecation in filter(None, (loaded.deprecation for loaded in registry().plugins)):
        print(escape_line(f"perceiver: {deprecation}"), file=sys.stderr)
