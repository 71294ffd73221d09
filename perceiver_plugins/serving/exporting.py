"""Exporting a model: traced with sizes as open as can be, checked against the original, and written."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from perceiver_core import PerceiverIO
from perceiver_plugins.serving.checking import Check, Run, checks
from perceiver_plugins.serving.tracing import Place, Traced, trace
from perceiver_registry import (
    LoadedModel,
    ModelDescription,
    UserError,
    config_to_dict,
    read_model,
    registry,
    write_model,
)

KEY = "perceiver"
"""A file's description of itself lies under this key."""


NO_TASK = ""
"""Task of a model that was built by hand, of which its configuration alone is known."""


class Settled(NamedTuple):
    """A model that is ready to be written.

    Attributes:
        traced: what was traced of it.
        built: what a backend made of that.
        checked: how it was compared with the original.
    """

    traced: Traced
    built: Any
    checked: list[Check]


class Backend(ABC):
    """What a program becomes, and how that is run and written."""

    @abstractmethod
    def build(self, traced: Traced) -> Any:
        """Makes of a program what is to be written."""

    @abstractmethod
    def run(self, built: Any) -> Run:
        """What :meth:`build` made, ready to compute."""

    @abstractmethod
    def save(self, built: Any, target: str, description: str) -> None:
        """Writes it, with a description."""

    @abstractmethod
    def load(self, target: str) -> Run:
        """What was written, ready to compute."""

    @abstractmethod
    def description(self, target: str) -> str:
        """The description that was written."""


def export(
    source: str | LoadedModel | PerceiverIO, target: str | Path, format: str | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Writes a model for serving.

    Args:
        source: a model, or where one is that ``perceiver_registry.read_model`` reads. It is put into evaluation mode.
        target: the file to write.
        format: "onnx" or "torch-export". None: what the target's suffix says.
        overwrite: replace a file that is there already.

    Returns:
        What the file says of itself: the original's description (``"model"``, ``"task"``, ``"data"``) and

        - ``"inputs"`` and ``"outputs"``: name, type and shape of each, with names for sizes that are open;
        - ``"sizes"``: for each of these names the least and the most that it can be (None: any);
        - ``"checked"``: the sizes with which the file was compared with the original, and the differences.

    Raises:
        UserError: if the model cannot be exported, or if there is something at ``target``.
    """
    if isinstance(source, str):
        loaded = read_model(source)
    elif isinstance(source, LoadedModel):
        loaded = source
    else:
        description = ModelDescription(NO_TASK, config_to_dict(source.config.without_params()))
        loaded = LoadedModel(source.eval(), description)
    write_model(loaded, str(target), _format_of(str(target), format), overwrite=overwrite)
    name = _format_of(str(target), format)
    return registry().get("format", name).resolve("format")().signature(str(target))


def _format_of(target: str, format: str | None) -> str:
    """The format that a file's suffix says."""
    if format is not None:
        return format
    for entry in registry().entries("format"):
        if entry.spec.writes and not entry.spec.reads and target.endswith(entry.spec.suffixes or ("/",)):
            return registry().short_name(entry)
    raise UserError(f"{target}: no format for serving has files of such a name: name it .onnx or .pt2")


def write(backend: Backend, loaded: LoadedModel, target: str) -> None:
    """Writes a model that has proved equal to the original in other sizes than those that were traced.

    Raises:
        UserError: if the model cannot be exported.
    """
    settled = settle(backend, loaded.model)
    description = {
        **_kept(loaded.description),
        **settled.traced.description(),
        "checked": [asdict(check) for check in settled.checked],
    }
    backend.save(settled.built, target, json.dumps(description, default=_plain))


def _kept(description: ModelDescription) -> dict[str, Any]:
    """What a file keeps of the original's description: a serving side has no use for the run's settings."""
    return {"model": description.model} if description.task == NO_TASK else description.to_dict(with_run=False)


def settle(backend: Backend, model: PerceiverIO) -> Settled:
    """Traces a model, and fixes those sizes with which what is built of it does not compute the same.

    Args:
        backend: builds of a program what is to be written.
        model: the model, in evaluation mode.

    Raises:
        UserError: if the model cannot be exported, or never computes the same.
    """
    fixed: set[Place] = set()
    while True:
        traced = trace(model, fixed)
        built = backend.build(traced)
        checked: list[Check] = []
        for check in checks(model, traced, backend.run(built)):
            checked.append(check)
            if not check.passed:
                break
        else:
            return Settled(traced, built, checked)
        # Where a batch of more examples fails in which another size differs, too, it is that one.
        failed = checked[-1].sizes
        to_blame = [name for name in failed if name != "batch"] or [*failed]
        if not to_blame:
            raise UserError("the model cannot be exported: what is exported fails, or computes something else")
        fixed |= {place for name in to_blame for place in traced.sizes[name].places}


def _plain(value: Any) -> Any:
    """What stands in JSON for a value of another kind."""
    return dict(value) if isinstance(value, Mapping) else str(value)
