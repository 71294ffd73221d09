"""Limits of training: a limit on the command line or in a config file replaces the default of the other one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from perceiver_cli.layers import merge_layers
from perceiver_cli.run_config import Run
from perceiver_cli.values import Values
from perceiver_registry import UserError

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


def check_limits(values: Values, run: Run, checkpoint: Mapping[str, Any], source: Path) -> None:
    """Check that a run's limits are not below what its checkpoint has trained.

    A limit that the checkpoint has reached exactly is accepted: the run trains no step, and reports the limit.

    Args:
        values: the values of the run.
        run: the run.
        checkpoint: content of the checkpoint that the run resumes from, of a valid structure.
        source: path of the checkpoint.

    Raises:
        UserError: if a limit is lower.
    """
    batches = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
    epochs = checkpoint["epoch"] + bool(batches.get("is_last_batch"))  # an epoch counts when its validation has ended
    for name, trained, unit in (("max_epochs", epochs, "epoch"), ("max_steps", checkpoint["global_step"], "step")):
        limit = values["trainer"][name]
        if limit not in UNLIMITED and limit < trained:
            raise UserError(
                f"{run.locate(f'trainer.{name}')}={limit}: {source} has already trained {trained} "
                f"{unit}{'' if trained == 1 else 's'} (raise it, or start a new run with --model.params={source})"
            )
