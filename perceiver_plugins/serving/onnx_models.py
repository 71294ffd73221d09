"""Export to ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceiver_core import Batch
from perceiver_plugins.sdk.tasks.batches import entries
from perceiver_plugins.serving.checking import Run
from perceiver_plugins.serving.exporting import KEY, Backend
from perceiver_plugins.serving.tracing import Traced, rename_symbols, suppress_logging
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line, surface_own_fault


class OnnxModels(Backend):
    """ONNX models, run by onnxruntime on the CPU. The description is an entry of the metadata."""

    def build(self, traced: Traced) -> Any:
        try:
            with suppress_logging():
                built: Any = torch.onnx.export(
                    traced.program,
                    dynamo=True,
                    verbose=False,
                    input_names=[port.name for port in traced.inputs],
                    output_names=[port.name for port in traced.outputs],
                )
        except Exception as error:  # such as an operation of an adapter that ONNX lacks
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
        options.log_severity_level = 4  # errors are raised as exceptions
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
        except Exception as error:  # files of other kinds can raise any error
            surface_own_fault(error)
            raise UserError(f"{target}: not an ONNX model exported by perceiver: {in_one_line(error)}") from error


def _name_sizes(model: Any, symbols: Mapping[str, str]) -> None:
    """Replace the program's symbols in the shapes of a model by the names of dynamic sizes."""
    import onnx_ir

    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    for value in values:
        if value.shape is None:
            continue
        value.shape = onnx_ir.Shape(
            [_rename(size if isinstance(size, int) else size.value, symbols) for size in value.shape]
        )


def _rename(size: int | str | None, symbols: Mapping[str, str]) -> int | str | None:
    if not isinstance(size, str):  # None: unknown
        return size
    return int(size) if size.isdigit() else rename_symbols(size, symbols)  # a specialised size is a string like "8"
