"""Reading of self-describing checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_registry.description import ModelDescription, Results, read_description
from perceiver_registry.errors import UserError, surface_own_fault

if TYPE_CHECKING:
    from torch import Tensor

    from perceiver_core import ModelConfig

KEY = "perceiver"
"""Key of the description in a checkpoint."""

SUFFIXES = (".ckpt", ".pt")
"""Suffixes of checkpoint files."""

MODEL_PREFIX = "model."
"""Prefix of the model's weights in the state dict of a task's module."""

MODULE_STATES = ("state_dict", "current_model_state")
"""Entries with state dicts of the task's module: the weights and, with weight averaging, the trained ones."""

NOT_OURS = "{source}: not a checkpoint of perceiver (it has no description of the model)"
"""Error message about checkpoints of other projects."""


def describe(
    task: str,
    config: ModelConfig[Any, Any],
    data: Mapping[str, Any] | None = None,
    run: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe a model as plain data, stored in checkpoints under :data:`KEY`.

    Names refer to the distributions under ``"plugins"``, independently of the plugins installed when it is read.

    Args:
        task: name of the task that the model was trained for.
        config: the model's configuration. ``params`` is omitted, since the checkpoint has the weights.
        data: properties of the data that prediction needs, from the data module (for example its tokenizer).
        run: the run's configuration, from which it can be resumed.
    """
    return ModelDescription.create(task, config, data, run).to_dict()


@dataclass
class Checkpoint:
    """A checkpoint of this project.

    Attributes:
        path: the file.
        content: content of the file.
        description: the description of its model.
    """

    path: Path
    content: dict[str, Any]
    description: ModelDescription

    @classmethod
    def read(cls, path: str | Path, map_file: bool = True) -> Checkpoint:
        """Read a checkpoint with torch's restricted unpickler.

        Args:
            path: the file.
            map_file: memory-map tensors. False: read them, for processes that may replace the file.

        Raises:
            UserError: if the file is missing or truncated, or is not a checkpoint of this project.
            PluginError: if it needs a plugin that is not installed; the message gives the pip command.
        """
        return cls.from_content(open_checkpoint(path, map_file), path)

    @classmethod
    def from_content(cls, content: dict[str, Any], path: str | Path) -> Checkpoint:
        """Create a checkpoint from the content that :func:`open_checkpoint` returned.

        Raises:
            UserError: if the description is missing or damaged.
            PluginError: if it needs a plugin that is not installed; the message gives the pip command.
        """
        if KEY not in content:
            raise UserError(NOT_OURS.format(source=path))
        description = replace(read_description(content[KEY], path), results=_results(content, path))
        if description.migrations:
            states = {name: content[name] for name in MODULE_STATES if isinstance(content.get(name), Mapping)}
            content |= {name: _migrated_state(state, description, path) for name, state in states.items()}
        return cls(Path(path), content, description)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"content": {}}  # spawned processes read the file again

    def take(self) -> dict[str, Any]:
        """Return the content and drop the reference to it, so that the caller can modify and free it."""
        content, self.content = self.content, {}
        return content

    @property
    def state_dict(self) -> Mapping[str, Tensor]:
        """State dict of the task's module.

        Raises:
            UserError: if the checkpoint has no weights.
        """
        state = self.content.get("state_dict")
        if not isinstance(state, Mapping):
            raise UserError(f"{self.path}: the checkpoint has no weights")
        return state

    @property
    def weights(self) -> dict[str, Tensor]:
        """State dict of the model within the task's module.

        Raises:
            UserError: if the checkpoint has no weights.
        """
        return _split(self.state_dict)[0]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of this project as plain data and tensors, with torch's restricted unpickler.

    Returns:
        The checkpoint, with its description under :data:`KEY`.

    Raises:
        UserError: if the file is missing or truncated, or is not a checkpoint of this project.
        PluginError: if it needs a plugin that is not installed; the message gives the pip command.
    """
    checkpoint = Checkpoint.read(path)
    return checkpoint.content | {KEY: checkpoint.description.to_dict()}


def open_checkpoint(path: str | Path, map_file: bool = True) -> dict[str, Any]:
    """Read any checkpoint with torch's restricted unpickler.

    Args:
        path: the file.
        map_file: memory-map tensors.

    Raises:
        UserError: if the file is missing or truncated, or is not a checkpoint.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=map_file)
    except Exception as error:  # other files raise various errors
        surface_own_fault(error)
        code = re.search(r"\bGLOBAL ([\w.]+)", str(error))
        if code:
            reason = f"its pickle calls {code[1]}, but only plain data is read"
            raise UserError(f"{path}: not a readable checkpoint: {reason}") from error
        raise UserError(f"{path}: not a readable checkpoint: truncated, or not written by perceiver") from error
    if not isinstance(checkpoint, dict):
        raise UserError(NOT_OURS.format(source=path))
    return checkpoint


def _migrated_state(state: Mapping[str, Tensor], description: ModelDescription, path: str | Path) -> dict[str, Tensor]:
    """Return a module's state dict with migrated weights of its model."""
    weights, others = _split(state)
    migrated = description.migrate_weights(weights, path)
    return {f"{MODEL_PREFIX}{name}": value for name, value in migrated.items()} | others


def _split(state: Mapping[Any, Tensor]) -> tuple[dict[str, Tensor], dict[Any, Tensor]]:
    """Split a module's state dict into that of its model, without the prefix, and the other entries."""
    weights, others = {}, {}
    for name, value in state.items():
        if isinstance(name, str) and name.startswith(MODEL_PREFIX):
            weights[name.removeprefix(MODEL_PREFIX)] = value
        else:
            others[name] = value
    return weights, others


def _results(content: Mapping[str, Any], path: str | Path) -> Results:
    """Return progress, metrics and folder of the run from a checkpoint's other entries."""
    callbacks = content.get("callbacks")
    states = callbacks.values() if isinstance(callbacks, Mapping) else ()
    scores = [(state.get("monitor"), state.get("current_score")) for state in states if isinstance(state, Mapping)]
    metrics = {name: _as_number(score) for name, score in scores if isinstance(name, str)}
    return Results(
        steps=content.get("global_step", 0),
        metrics={name: score for name, score in metrics.items() if score is not None},
        logs=str(Path(path).absolute().parent.parent),
        lightning=content.get("pytorch-lightning_version"),
    )


def _as_number(value: Any) -> float | None:
    import torch

    try:
        is_number = isinstance(value, int | float) or (isinstance(value, torch.Tensor) and value.numel() == 1)
        return float(value) if is_number else None
    except (OverflowError, RuntimeError):  # huge integers, complex tensors
        return None
