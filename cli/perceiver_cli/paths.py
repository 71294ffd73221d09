"""Refusal of remote paths in command lines, config files and the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from perceiver_cli.commands import INPUT_COMMANDS
from perceiver_registry import UserError
from perceiver_registry.remote import refuse_remote

CACHE = "PERCEIVER_CACHE"
"""Environment variable of the cache folder."""


def refuse_remote_arguments(command: str, argv: Sequence[str]) -> None:
    """Check that no word of a command line is a remote path.

    Args:
        command: the subcommand, named in messages about positional arguments.
        argv: arguments after the subcommand.

    Raises:
        UserError: if a word, or the cache folder in the environment, is a remote path.
    """
    refuse_remote(CACHE, os.environ.get(CACHE))
    flag = ""
    for word in argv:
        name, equals, value = word.partition("=")
        if word.startswith("--") and equals:
            refuse_remote(name, value)
        elif flag or command not in INPUT_COMMANDS:
            refuse_remote(flag or command, word)
        else:
            _refuse_remote_input(command, word)
        flag = word if word.startswith("--") and not equals else ""


def _refuse_remote_input(command: str, word: str) -> None:
    try:
        refuse_remote(command, word)
    except UserError as error:
        raise UserError(
            f"{error}; to give the text of an address as input, use --input=FILE or standard input"
        ) from error


def refuse_remote_values(values: Mapping[str, Any], prefix: str = "--") -> None:
    """Check that no option in a run's values, or in those of a config file, is a remote path.

    Args:
        values: nested values.
        prefix: text before the option's name in messages.

    Raises:
        UserError: if one is; the message names the option.
    """
    for name, value in values.items():
        refuse_remote(f"{prefix}{name}", value)
