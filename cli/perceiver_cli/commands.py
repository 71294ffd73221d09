"""The subcommands. Imports nothing of what they do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        summary: what it does, in a line.
        place: ``module:function`` of what does it, called with the subcommand's name and the rest of the command line.
    """

    summary: str
    place: str


RUN, LISTING = "perceiver_cli.run:run", "perceiver_cli.listing:listing"

COMMANDS: dict[str, dict[str, Command]] = {
    "run a model": {
        "fit": Command("train a model", RUN),
        "validate": Command("compute the validation metrics of a checkpoint", RUN),
        "test": Command("compute the test metrics of a checkpoint", RUN),
        "predict": Command("predict with a checkpoint", RUN),
    },
    "take it elsewhere": {
        "convert": Command(
            "write a model in another format: checkpoint, safetensors, folder for the hub",
            "perceiver_cli.convert:convert",
        ),
        "export": Command("write a model as a file for serving: torch.export or ONNX", "perceiver_cli.export:export"),
    },
    "see what is there": {
        "list-adapters": Command("input and output adapters that are installed, and from which package", LISTING),
        "list-tasks": Command("tasks that are installed", LISTING),
        "list-data": Command("data modules that are installed", LISTING),
        "list-models": Command("named models that are installed", LISTING),
        "list-formats": Command("formats that models are read from and written in", LISTING),
        "plugins": Command(
            "plugins that were found, what they provide, and why one failed", "perceiver_cli.plugins:plugins"
        ),
        "describe": Command("the fields of an adapter, task, data module or model", LISTING),
    },
    "make your own": {
        "new-plugin": Command("make a package with adapters and data of your own", "perceiver_cli.scaffold:new_plugin"),
    },
    "set up your shell": {
        "completion": Command(
            "print a script that completes names and flags in bash or zsh", "perceiver_cli.completion:completion"
        ),
    },
}
"""All subcommands, by what a person wants to do."""

SUMMARIES = {name: command.summary for group in COMMANDS.values() for name, command in group.items()}
"""What each of them does."""
