"""Options of data modules without effect, which older config files contain."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from perceiver_cli.data_modules import data_class
from perceiver_cli.layers import ConfigLayer
from perceiver_cli.run_config import Run
from perceiver_cli.values import name_of
from perceiver_registry import UserError


def unused_options(run: Run) -> Mapping[str, Any]:
    """Return the options without effect that a run's data module declares, with their defaults, by dotted name.

    A data module declares them in its attribute ``unused_options``. Config files of earlier versions contain them, when
    one class served all tasks.
    """
    data = name_of(run.values, "data")
    if run.task is None or data is None:
        return {}
    declared = getattr(data_class(data, run.task.name, run.layers), "unused_options", {})
    return {f"data.{name}": value for name, value in declared.items()}


def refuse_unused_flags(run: Run, unused: Container[str]) -> None:
    """Refuse flags without effect.

    Args:
        run: the run.
        unused: dotted names of the options without effect.

    Raises:
        UserError: if one is given.
    """
    for flag in run.line.flags:
        if flag.name in unused:
            raise _unused(flag.written, run)


def check_unused(layer: ConfigLayer, key: str, value: Any, default: Any, run: Run) -> None:
    """Check that a config file has an option without effect at its default.

    Raises:
        UserError: if it has not.
    """
    if value != default:
        raise _unused(f"{layer.line_of(key)}: {key}", run)


def _unused(source: str, run: Run) -> UserError:
    task = run.task.name if run.task else ""
    return UserError(f"{source}: has no effect with --task={task} (leave it out)")
