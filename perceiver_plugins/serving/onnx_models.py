"""Programs of ``torch.export`` as ONNX models."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Batch
from perceiver_plugins.serving.batches import entries
from perceiver_plugins.serving.checking import Run
from perceiver_plugins.serving.exporting import KEY, Backend
from perceiver_plugins.serving.tracing import Traced, quietly, renamed
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line, surface_own_fault


class OnnxModels(Backend):
    """An ONNX model, run by onnxruntime on the CPU. Its description is an entry of its metadata."""

    def build(self, traced: Traced) -> Any:
        try:
            with quietly():
                built: Any = torch.onnx.export(
                    traced.program,
                    dynamo=True,
                    verbose=False,
                    input_names=[port.name for port in traced.inputs],
                    output_names=[port.name for port in traced.outputs],
                )
        except Exception as error:  # an operation that ONNX does not have, in a stranger's adapter
            surface_own_fault(error)
            raise UserError(f"the model cannot be expressed in ONNX: {in_one_line(error)}") from error
        _name_sizes(built.model, traced.symbols)
        return built

    def run(self, built: Any) -> Run:
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder, "model.onnx"))
            built.save(file)
            return self.load(file)

    def save(self, built: Any, target: str, description: str) -> None:
        built.model.metadata_props[KEY] = description
        built.save(target)

    def load(self, target: str) -> Run:
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised anyway
        session = onnxruntime.InferenceSession(target, options, providers=["CPUExecutionProvider"])
        names = {each.name for each in session.get_inputs()}
        outputs = [each.name for each in session.get_outputs()]

        def run(batch: Batch) -> Mapping[str, Tensor]:
            arrays = {name: value.numpy() for name, value in entries(batch) if name in names}
            return dict(zip(outputs, map(torch.from_numpy, session.run(outputs, arrays)), strict=True))

        return run

    def description(self, target: str) -> str:
        import onnx

        try:
            model = onnx.load(target, load_external_data=False)
            return {entry.key: entry.value for entry in model.metadata_props}[KEY]
        except Exception as error:  # a file that is something else fails in any way
            surface_own_fault(error)
            raise UserError(f"{target}: no ONNX model that perceiver exported: {in_one_line(error)}") from error


def _name_sizes(model: Any, symbols: Mapping[str, str]) -> None:
    """Gives the open sizes of a model's values their names, where the exporter has the program's symbols."""
    import onnx_ir

    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        if value.shape is None:
            continue
        value.shape = onnx_ir.Shape(
            [_named(size if isinstance(size, int) else size.value, symbols) for size in value.shape]
        )


def _named(size: int | str | None, symbols: Mapping[str, str]) -> int | str | None:
    if not isinstance(size, str):  # None is not known
        return size
    return int(size) if size.isdigit() else renamed(size, symbols)  # what turned out to be fixed is written "8"
