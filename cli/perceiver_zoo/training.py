"""Training with the defaults of the command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from perceiver_cli.allowed import allow
from perceiver_cli.results import RunResult
from perceiver_zoo.commands import as_flags, run_command
from perceiver_zoo.models import LoadedModel


class TrainedModel(LoadedModel):
    """Result of training, with the model of its best checkpoint or, without one, of its last checkpoint.

    Attributes:
        result: metrics, checkpoints, folder and duration of the run.

    Args:
        result: the result of the run.
        device: as for :func:`~perceiver_zoo.load`.
    """

    def __init__(self, result: RunResult, device: str = "auto"):
        self.result = result
        saved = result.best_checkpoint or result.last_checkpoint
        super().__init__(os.path.abspath(saved) if saved else None, device)

    @property
    def metrics(self) -> Mapping[str, float]:
        """Latest value of each metric that the run logged, by name."""
        return self.result.metrics


def train(
    task: str | None = None,
    data: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    config: str | os.PathLike[str] | None = None,
    allowed: Iterable[str] = (),
    **options: Any,
) -> TrainedModel:
    """Train a model as ``perceiver fit`` does, with its defaults, report and checkpoints.

    >>> result = perceiver_zoo.train("text-classification", "reviews.csv", trainer={"max_epochs": 3})
    >>> result.metrics["val_loss"], result.predict(["a text"])

    Args:
        task: name of a task. None: that of ``config``, or of the named model.
        data: path of the user's own data or name of a data module; with options, a mapping whose ``"name"`` is one of
            these: ``{"name": "reviews.csv", "text_column": "review"}``. None: the task's default data.
        config: YAML file of options, such as the ``config.yaml`` of a run.
        allowed: additional packages whose classes options may name.
        options: sections of the configuration, with the names of the command's flags:
            ``model={"num_latents": 8}, optimizer={"name": "Lamb", "lr": 1e-3}, seed_everything=1``.

    Returns:
        The trained model.

    Raises:
        UserError: if an option, a file or a combination of them is wrong; the message names the flag.
        KeyboardInterrupt: if the run was interrupted. Its latest state is saved.
    """
    given = {"config": config, "task": task, "data": data}
    flags = as_flags({name: value for name, value in given.items() if value is not None} | options)
    allow([*allowed])
    result = run_command("fit", flags)
    trainer = options.get("trainer")
    return TrainedModel(result, trainer.get("accelerator", "auto") if isinstance(trainer, Mapping) else "auto")
