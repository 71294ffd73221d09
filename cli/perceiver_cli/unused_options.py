"""Options without effect: those that data modules declare, and those of other architectures."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from typing import Any

from perceiver_cli.data_modules import data_class
from perceiver_cli.layers import PARAMS, ConfigLayer, merge_layers
from perceiver_cli.run_config import Run
from perceiver_cli.values import ARCHITECTURE, architecture_of, flatten, name_of
from perceiver_registry import UserError, registry
from perceiver_registry.configs import unused_options as unused_options_of


def unused_options(run: Run) -> Mapping[str, Any]:
    """Return the options without effect in a run, with the values that config files may give them, by dotted name.

    A data module declares some in its attribute ``unused_options``. Config files of earlier versions contain them, when
    one class served all tasks. Options of other architectures may have no value.
    """
    unused: dict[str, Any] = dict.fromkeys(options_of_other_architectures(run), ...)
    data = name_of(run.values, "data")
    if run.task is None or data is None:
        return unused
    declared = getattr(data_class(data, run.task.name, run.layers), "unused_options", {})
    return unused | {f"data.{name}": value for name, value in declared.items()}


def options_of_other_architectures(run: Run) -> Collection[str]:
    """Return the dotted names of options that the run's architecture does not have.

    They are those of Perceiver IO, and of the default architectures of the task and the named model.
    """
    if run.task is None:
        return ()
    others = [registry().get("architecture", run.task.spec.architecture, run.task.plugin)]
    named = name_of(run.values, "model")
    model = registry().find("model", named) if named else None
    if model is not None and "architecture" in model.spec.config:
        others.append(registry().get("architecture", model.spec.config["architecture"], model.plugin))
    return unused_options_of(architecture_of(run.values), [entry.full_name for entry in others])


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
            raise _unused(flag.written, flag.name, run)
    names = merge_layers(layer for layer in run.user if not layer.is_file)
    for name in PARAMS:
        if name in unused and name in flatten(names):
            raise _unused(f"--{name}", name, run)


def check_unused(layer: ConfigLayer, key: str, value: Any, default: Any, run: Run) -> None:
    """Check that a config file has an option without effect at its default.

    Raises:
        UserError: if it has not.
    """
    if value != default:
        raise _unused(f"{layer.line_of(key)}: {key}", key, run)


def _unused(source: str, name: str, run: Run) -> UserError:
    task = run.task.name if run.task else ""
    is_of_model = name.startswith("model.")
    choice = f"--{ARCHITECTURE}={architecture_of(run.values)}" if is_of_model else f"--task={task}"
    return UserError(f"{source}: has no effect with {choice} (leave it out)")
