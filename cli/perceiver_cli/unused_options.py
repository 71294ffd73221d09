"""Options of data modules that have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_cli.data_modules import data_class
from perceiver_cli.layers import ConfigLayer
from perceiver_cli.run_config import Run
from perceiver_cli.values import name_of
from perceiver_registry import UserError


def unused_options(run: Run) -> Mapping[str, Any]:
    """Return the options without an effect that a run's data module declares, by dotted name, with their defaults.

    A data module declares them in its attribute ``unused_options``, defaults by name. Config files that an earlier
    version wrote have them, as one class served all tasks then.
    """
    data = name_of(run.values, "data")
    if run.task is None or data is None:
        return {}
    declared = getattr(data_class(data, run.task.name, run.layers), "unused_options", {})
    return {f"data.{name}": value for name, value in declared.items()}


def refuse_unused_flags(run: Run) -> None:
    """Refuse flags that have no effect.

    Raises:
        UserError: if one is given.
    """
    unused = unused_options(run)
    for flag in run.line.flags:
        if flag.name in unused:
            raise _unused(flag.written, run)


def check_unused(layer: ConfigLayer, key: str, value: Any, default: Any, run: Run) -> None:
    """Check that a config file leaves an option without an effect at its default.

    Raises:
        UserError: if it does not.
    """
    if value != default:
        raise _unused(f"{layer.line_of(key)}: {key}", run)


def _unused(source: str, run: Run) -> UserError:
    task = run.task.name if run.task else ""
    return UserError(f"{source}: has no effect with --task={task} (leave it out)")
