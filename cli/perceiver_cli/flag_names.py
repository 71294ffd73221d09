"""Names of options in the messages of plugins, as the flags of a command."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from perceiver_cli.library_warnings import as_note
from perceiver_cli.values import Values
from perceiver_registry import UserError

SECTIONS = ("data", "task")
"""Sections whose options plugins name alone. An option of both is one of the data."""

DOTTED = {
    "model.encoder": "model.encoder",
    "model.decoder": "model.decoder",
    "encoder": "model.encoder",
    "decoder": "model.decoder",
    "trainer": "trainer",
    "model": "model",
}
"""Sections whose options plugins name with the section: "encoder.params"."""

NOT_OPTIONS = ("name", "adapter")
"""Keys of sections that are not options."""

CONFIG_ERROR = re.compile(r"\w+Config\.\w+=")
"""Beginning of the errors of model configs, whose other names are fields of the same config."""


@contextmanager
def named_flags(values: Values, command_options: Collection[str] = ()) -> Iterator[None]:
    """Name options by their flags in the user errors and warnings within this context.

    Args:
        values: the values of the run.
        command_options: options whose flags have no section. They take precedence over others of the same name.
    """
    formatwarning = warnings.formatwarning

    def format_as_note(message: Warning | str, *_: Any, **__: Any) -> str:
        return as_note(with_flags(str(message), values, command_options))

    warnings.formatwarning = format_as_note
    try:
        yield
    except UserError as error:
        message = with_flags(str(error), values, command_options)
        if message == str(error):
            raise
        raise type(error)(message) from error
    finally:
        warnings.formatwarning = formatwarning


def with_flags(message: str, values: Mapping[str, Any], command_options: Collection[str] = ()) -> str:
    """Add dashes and sections to the options that a message names: "val_files" becomes "--data.val_files".

    A name of one word is an option only at the start of the message, and before "=": others are words. Names in quotes
    and paths, sizes of the data or the model ("the model's max_seq_len", "which has max_seq_len=9"), and fields of
    model configs in their errors are no options.

    Args:
        message: the message.
        values: the values of the run.
        command_options: as in :func:`named_flags`.
    """
    options = {name: f"--{section}.{name}" for section in reversed(SECTIONS) for name in values.get(section) or {}}
    options |= {name: f"--{name}" for name in command_options}

    def replaced(match: re.Match[str]) -> str:
        name, after = match["name"], match.string[match.end() :]
        is_start = match.start() == 0 and after.startswith((":", "="))
        is_option = "_" in name or is_start or bool(re.match(r"=[^\s=]", after))
        return options[name] if is_option else name

    def replaced_dotted(match: re.Match[str]) -> str:
        section = DOTTED[match["section"]]
        node: Any = values
        for key in section.split("."):
            node = node.get(key) or {}
        return f"--{section}.{match['name']}" if match["name"] in node else match[0]

    begin, end = r"(?<![\w.'\"`/\\-])(?<!'s )(?<!which has )", r"(?![\w'\"`/\\-]|\.\w)"
    names = "|".join(sorted(map(re.escape, options.keys() - set(NOT_OPTIONS)), key=len, reverse=True))
    if names and not CONFIG_ERROR.match(message):
        message = re.sub(rf"{begin}(?P<name>{names}){end}", replaced, message)
    sections = "|".join(map(re.escape, DOTTED))
    return re.sub(rf"{begin}(?P<section>{sections})\.(?P<name>\w+){end}", replaced_dotted, message)
