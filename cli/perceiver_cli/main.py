"""The ``perceiver`` command. Imports what a subcommand needs when it runs, so that help and listings answer at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from perceiver_cli.errors import WRONG_USE, guarded
from perceiver_registry.errors import near

RUNS = {
    "fit": "train a model",
    "validate": "compute the validation metrics of a checkpoint",
    "test": "compute the test metrics of a checkpoint",
    "predict": "predict with a checkpoint",
}
LISTINGS = {
    "list-adapters": "input and output adapters that are installed, and from which package",
    "list-tasks": "tasks that are installed",
    "list-data": "data modules that are installed",
    "list-models": "named models that are installed",
    "describe": "the fields of an adapter, task, data module or model",
}

USAGE = """\
usage: perceiver COMMAND [options]

A zoo of Perceiver models: any input x any output, from a config, in one command.

run a model:
{runs}

see what is there:
{listings}

options:
  --version       show the version and exit
  -h, --help      show this help and exit
  --debug         (with any command) show the traceback of an error

examples:
  perceiver fit --task=mlm
  perceiver fit --task=mlm --data=text-files --data.train_files=my.txt
  perceiver predict --ckpt_path=best "Return the [MASK][MASK][MASK][MASK][MASK] of the list."
  perceiver fit --task=mlm --help
"""


def usage() -> str:
    """The help of the whole command."""

    def lines(commands: dict[str, str]) -> str:
        return "\n".join(f"  {name:<15} {summary}" for name, summary in commands.items())

    return USAGE.format(runs=lines(RUNS), listings=lines(LISTINGS))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (None: that of the process) and returns the exit code.

    0: done; 1: the run failed; 2: wrong use; 130: interrupted.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0 if argv else WRONG_USE
    if argv[0] == "--version":
        print(f"perceiver {version('perceiver-zoo')}")
        return 0
    command, *rest = argv
    if command in RUNS:

        def action() -> None:
            from perceiver_cli.run import run

            run(command, rest)

    elif command in LISTINGS:

        def action() -> None:
            from perceiver_cli.listing import listing

            listing(command, rest, LISTINGS[command])

    else:
        known = near(command, [*RUNS, *LISTINGS])
        print(f"perceiver: unknown command {command!r}; {known}", file=sys.stderr)
        return WRONG_USE
    return guarded(action, debug="--debug" in rest)
