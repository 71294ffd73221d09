"""Formats of the zoo: checkpoints and safetensors.

torch is imported when a model is read or written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_registry import (
    Format,
    LoadedModel,
    ModelDescription,
    UserError,
    assemble,
    config_from_dict,
    create_module,
)
from perceiver_registry.checkpoint import KEY, NOT_OURS, SUFFIXES, Checkpoint, open_checkpoint
from perceiver_registry.description import read_description
from perceiver_registry.errors import in_one_line
from perceiver_registry.params import check_fits
from perceiver_registry.plain_data import PlainDataError, load_json

if TYPE_CHECKING:
    from torch import Tensor


class CheckpointFormat(Format):
    """Self-describing checkpoints. An instance reads each file once."""

    def __init__(self) -> None:
        self._content: dict[str, dict[str, Any]] = {}
        self._checkpoints: dict[str, Checkpoint] = {}

    def recognises(self, source: str) -> bool:
        if not source.endswith(SUFFIXES):
            return False
        if KEY not in self._open(source):
            raise UserError(NOT_OURS.format(source=source))
        return True

    def checkpoint(self, source: str) -> Checkpoint:
        if source not in self._checkpoints:
            self._checkpoints[source] = Checkpoint.from_content(self._open(source), source)
            del self._content[source]
        return self._checkpoints[source]

    def description(self, source: str) -> ModelDescription:
        return self.checkpoint(source).description

    def weights(self, source: str) -> Mapping[str, Tensor]:
        return self.checkpoint(source).weights

    def read(self, source: str) -> LoadedModel:
        return loaded(self.description(source), self.weights(source), source)

    def _open(self, source: str) -> dict[str, Any]:
        if source not in self._content:
            self._content[source] = open_checkpoint(source, self.map_files)
        return self._content[source]

    def write(self, loaded: LoadedModel, target: str) -> None:
        """Write a checkpoint as training does, at step 0."""
        import pytorch_lightning
        import torch

        model, description = loaded
        options = {name: value for name, value in _task_options(description).items() if name != "name"}
        module = create_module(description.task, config_from_dict(description.model).without_params(), **options)
        module.model.load_state_dict(model.state_dict())
        checkpoint = {
            "epoch": 0,
            "global_step": 0,
            "pytorch-lightning_version": pytorch_lightning.__version__,
            "state_dict": module.state_dict(),
            "hparams_name": module._hparams_name,
            "hyper_parameters": dict(module.hparams),
            # No training state: training starts from step 0.
            "callbacks": {},
            "optimizer_states": [],
            "lr_schedulers": [],
            KEY: replace(description, seed=None).to_dict(),
        }
        torch.save(checkpoint, target)


def _task_options(description: ModelDescription) -> Mapping[str, Any]:
    task = description.run.get("task")
    return task if isinstance(task, Mapping) else {}


class SafetensorsFormat(Format):
    """Weights in a safetensors file, with a description of the model in its metadata if written by this project."""

    def recognises(self, source: str) -> bool:
        if not source.endswith(".safetensors"):
            return False
        _header(source)
        return True

    def __init__(self) -> None:
        self._descriptions: dict[str, ModelDescription] = {}

    def description(self, source: str) -> ModelDescription:
        if source not in self._descriptions:
            self._descriptions[source] = self._read_description(source)
        return self._descriptions[source]

    def _read_description(self, source: str) -> ModelDescription:
        written = _header(source).get(KEY)
        if written is None:
            raise UserError(
                f"{source}: weights without a description of their model (set --model=NAME to read them as those of a "
                "named model)"
            )
        try:
            description = load_json(written)
        except PlainDataError as error:
            raise UserError(f"{source}: cannot read its description of the model: {error}") from error
        return read_description(description, source)

    def weights(self, source: str) -> Mapping[str, Tensor]:
        from safetensors.torch import load_file

        _header(source)
        weights = load_file(source)
        try:
            description = self.description(source)
        except UserError:  # without a description, or of a model that cannot be built
            return weights
        return description.migrate_weights(weights, source)

    def read(self, source: str) -> LoadedModel:
        return loaded(self.description(source), self.weights(source), source)

    def write(self, loaded: LoadedModel, target: str) -> None:
        """Write the weights, shared weights once, and the description without the run."""
        from safetensors.torch import save_file

        written: set[tuple[int, Any]] = set()
        state = {}
        for name, value in loaded.model.state_dict().items():
            storage = value.data_ptr(), value.shape
            if value.numel() == 0 or storage not in written:
                written.add(storage)
                state[name] = value.contiguous()
        description = loaded.description.to_dict(with_run=False) | {"run": {}}
        save_file(state, target, {"format": "pt", KEY: json.dumps(description)})


def _header(source: str) -> Mapping[str, str]:
    """Read the metadata of a safetensors file.

    Raises:
        UserError: if the file is missing or not a safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(source).is_file():
        raise UserError(f"{source}: no such file")
    try:
        with safe_open(source, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{source}: not a readable safetensors file: {error}") from error


def loaded(description: ModelDescription, weights: Mapping[str, Tensor], source: str) -> LoadedModel:
    """Build the model of a description and load its weights.

    Args:
        description: the model's description.
        weights: the model's state dict.
        source: the source of both, for messages.

    Raises:
        UserError: if the weights do not fit the description.
        PluginError: if the model needs an adapter that is not installed.
    """
    config = description.build_config(source).without_params()
    with description.loading(source):
        try:
            model = assemble(config)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"{source}: {error}") from error
        except (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
            raise UserError(f"{source}: its description of the model is damaged: {in_one_line(error)}") from error
        check_fits(model.state_dict(), weights, source)
    model.load_state_dict(weights, strict=False)
    return LoadedModel(model.eval(), description)
