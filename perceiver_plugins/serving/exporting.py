"""Export of a model: tracing with dynamic dimensions, comparison with the original, and writing."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from perceiver_core import Model
from perceiver_plugins.serving.checking import Check, Run, checks
from perceiver_plugins.serving.tracing import InputDim, Traced, trace
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
"""Key of the description in an exported file."""

NO_TASK = ""
"""Task of a model without a description, of which only the configuration is known."""


class CheckedProgram(NamedTuple):
    """Traced and checked model, ready to be written.

    Attributes:
        traced: the traced model.
        built: the backend's result for it.
        checked: the comparisons with the original.
    """

    traced: Traced
    built: Any
    checked: list[Check]


class Backend(ABC):
    """Conversion of traced programs to a file format, and execution of the result."""

    @abstractmethod
    def build(self, traced: Traced) -> Any:
        """Convert a traced program to the object that is written."""

    @abstractmethod
    def run(self, built: Any) -> Run:
        """Return a function that runs the result of :meth:`build`."""

    @abstractmethod
    def save(self, built: Any, target: str, description: str) -> None:
        """Write the result of :meth:`build` with a description."""

    @abstractmethod
    def load(self, target: str) -> Run:
        """Return a function that runs a written file."""

    @abstractmethod
    def description(self, target: str) -> str:
        """Return the description in a written file."""


def export(
    source: str | LoadedModel | Model, target: str | Path, format: str | None = None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Export a model for serving.

    Args:
        source: a model, which is put into evaluation mode, or a source that ``perceiver_registry.read_model`` reads.
        target: the file to write.
        format: "onnx" or "torch-export". None: the format of the target's suffix.
        overwrite: replace an existing file.

    Returns:
        The description in the file: that of the original model (``"model"``, ``"task"``, ``"data"``) and

        - ``"inputs"`` and ``"outputs"``: name, type and shape of each tensor, with names for dynamic sizes;
        - ``"sizes"``: minimum and maximum of each dynamic size (None: no limit);
        - ``"checked"``: the sizes at which the file was compared with the original, and the differences.

    Raises:
        UserError: if the model cannot be exported, or if ``target`` exists.
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
    """Return the given format, or that of a file's suffix."""
    if format is not None:
        return format
    for entry in registry().entries("format"):
        if entry.spec.writes and not entry.spec.reads and target.endswith(entry.spec.suffixes or ("/",)):
            return registry().short_name(entry)
    raise UserError(f"{target}: unknown suffix of a format for serving (use .onnx or .pt2)")


def write(backend: Backend, loaded: LoadedModel, target: str) -> None:
    """Export a model, check that it equals the original at several sizes, and write it.

    Raises:
        UserError: if the model cannot be exported.
    """
    program = build_checked_program(backend, loaded.model)
    description = {
        **_stored_description(loaded.description),
        **program.traced.description(),
        "checked": [asdict(check) for check in program.checked],
    }
    backend.save(program.built, target, json.dumps(description, default=_to_json))


def _stored_description(description: ModelDescription) -> dict[str, Any]:
    """Return the description of the original for the file, without the settings of its training run."""
    return {"model": description.model} if description.task == NO_TASK else description.to_dict(with_run=False)


def build_checked_program(backend: Backend, model: Model) -> CheckedProgram:
    """Trace and build a model, with static sizes where the result with dynamic sizes differs from the original.

    Args:
        backend: builds the traced program.
        model: the model, in evaluation mode.

    Raises:
        UserError: if the model cannot be exported, or if the result differs even with static sizes.
    """
    fixed: set[InputDim] = set()
    while True:
        traced = trace(model, fixed)
        built = backend.build(traced)
        checked: list[Check] = []
        for check in checks(model, traced, backend.run(built)):
            checked.append(check)
            if not check.passed:
                break
        else:
            return CheckedProgram(traced, built, checked)
        # If the batch size and another size differ from those of tracing, the other size is the cause.
        failed = checked[-1].sizes
        causes = [name for name in failed if name != "batch"] or [*failed]
        if not causes:
            raise UserError("the model cannot be exported: the exported model fails, or differs from the original")
        fixed |= {dim for name in causes for dim in traced.sizes[name].dims}


def _to_json(value: Any) -> Any:
    """Convert a value that JSON does not support."""
    return dict(value) if isinstance(value, Mapping) else str(value)
