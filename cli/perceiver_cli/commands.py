"""Table of subcommands. Importing it imports none of their modules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        summary: description of one line.
        import_path: ``module:function``, called with the subcommand's name and the arguments after it.
    """

    summary: str
    import_path: str


RUN, LISTING = "perceiver_cli.run:run", "perceiver_cli.listing:listing"

INPUT_COMMANDS = ("predict", "embed")
"""Subcommands that apply a trained model to inputs."""

COMMANDS: dict[str, dict[str, Command]] = {
    "train and predict": {
        "fit": Command("train a model", RUN),
        "validate": Command("compute the validation metrics of a checkpoint", RUN),
        "test": Command("compute the test metrics of a checkpoint", RUN),
        "predict": Command("predict with a checkpoint", RUN),
        "embed": Command("compute embeddings with a checkpoint, or find similar inputs", RUN),
    },
    "convert and export": {
        "convert": Command(
            "convert a model to another format: checkpoint, safetensors or a folder for the hub",
            "perceiver_cli.convert:convert",
        ),
        "export": Command("export a model to a file for serving: torch.export or ONNX", "perceiver_cli.export:export"),
    },
    "list what is installed": {
        "list-adapters": Command("list input and output adapters, with the packages that provide them", LISTING),
        "list-architectures": Command("list architectures, with the packages that provide them", LISTING),
        "list-tasks": Command("list tasks", LISTING),
        "list-data": Command("list data modules", LISTING),
        "list-models": Command("list named models", LISTING),
        "list-formats": Command("list the formats that models are read from and written to", LISTING),
        "plugins": Command("list plugins, what they provide, and why one failed", "perceiver_cli.plugins:plugins"),
        "describe": Command("show the options of an adapter, architecture, task, data module or model", LISTING),
    },
    "write a plugin": {
        "new-plugin": Command(
            "create a package with adapters and a data module of your own", "perceiver_cli.scaffold:new_plugin"
        ),
    },
    "set up your shell": {
        "completion": Command("print a completion script for bash or zsh", "perceiver_cli.completion:completion"),
    },
}
"""All subcommands, grouped as in the help."""

SUMMARIES = {name: command.summary for group in COMMANDS.values() for name, command in group.items()}
"""Descriptions of the subcommands, by name."""
