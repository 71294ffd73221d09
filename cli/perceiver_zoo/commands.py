"""Calls of the command, with the options of Python functions as flags."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perceiver_cli.errors import InterruptedRunError
from perceiver_cli.results import RunResult
from perceiver_cli.run import run
from perceiver_registry import UserError


def run_command(command: str, flags: Iterable[str]) -> RunResult:
    """Run ``fit``, ``validate`` or ``test``.

    Args:
        command: the command.
        flags: its flags.

    Raises:
        UserError: if a flag, a file or a combination of them is wrong.
        KeyboardInterrupt: if the run was interrupted.
    """
    formatwarning = warnings.formatwarning
    try:
        result = run(command, [*flags])
    except InterruptedRunError as error:
        raise KeyboardInterrupt from error
    finally:
        warnings.formatwarning = formatwarning
    assert result is not None  # only --help and --print_config have no result; options cannot express them
    return result


def as_flags(options: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Convert options to flags of the command.

    Args:
        options: values by name. A mapping is a section: ``{"trainer": {"max_steps": 9}}`` is ``--trainer.max_steps=9``.
            The key ``"name"`` is the section's name: ``{"optimizer": {"name": "Lamb"}}`` is ``--optimizer=Lamb``.
        section: dotted name of the section, with a trailing dot; "" for the top level.

    Raises:
        UserError: if a value is neither plain data nor a path.
    """
    for name, value in options.items():
        dotted = section.removesuffix(".") if section and name == "name" else f"{section}{name}"
        if isinstance(value, Mapping):
            yield from as_flags(value, f"{dotted}.")
        else:
            yield f"--{dotted}={_as_text(dotted, value)}"


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    try:
        return json.dumps(value, ensure_ascii=False, default=_as_plain)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: must be plain data or a path, got {error}") from error


def _as_plain(value: Any) -> Any:
    """Convert a path, or a number of numpy or torch, to plain data."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if getattr(value, "ndim", None) == 0:
        return value.item()
    raise TypeError(type(value).__name__)
