"""Limits of training: a limit on the command line or in a config file replaces the default of the other one."""

from __future__ import annotations

from collections.abc import Iterable

from perceiver_cli.layers import merge_layers
from perceiver_cli.run_config import Run
from perceiver_cli.values import Values

OTHER_LIMIT = {"max_epochs": "max_steps", "max_steps": "max_epochs"}
"""Options of the trainer that limit the length of training, each with the one that it replaces.

``max_time`` replaces neither: the learning rate schedule needs a number of steps.
"""

UNLIMITED = (None, -1)
"""Values of a limit that do not limit training."""


def replaced_limits(values: Values, run: Run) -> list[str]:
    """Return the limits of training that the user's other limit replaces.

    A limit that comes from defaults or from the checkpoint ends training no earlier than a limit of the user: with
    ``--trainer.max_steps=50000``, the task's ``max_epochs`` does not apply. Of two limits of the user, both apply.

    Args:
        values: the values of the run, flags included.
        run: the run.

    Returns:
        Options of the trainer: ["max_epochs"], ["max_steps"] or [].
    """
    given = {name for name in OTHER_LIMIT if values["trainer"][name] not in UNLIMITED}
    user = merge_layers(run.user).get("trainer") or {}
    of_user = {name for name in given if run.has_flag(f"trainer.{name}") or name in user}
    return sorted(given - of_user) if of_user else []


def remove_limits(values: Values, names: Iterable[str]) -> None:
    """Remove limits of training, in place.

    Args:
        values: the values of the run.
        names: options of the trainer.
    """
    for name in names:
        values["trainer"][name] = -1
