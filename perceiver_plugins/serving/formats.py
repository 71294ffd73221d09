"""Formats for serving. Backends are imported when a model is exported."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any, ClassVar

from perceiver_registry.formats import Format, LoadedModel
from perceiver_registry.import_paths import resolve_import_path

if TYPE_CHECKING:
    from perceiver_core import Batch, Model
    from perceiver_plugins.serving.exporting import Backend


class ServingFormat(Format):
    """Format that is only written, and run without this project."""

    backend: ClassVar[str]
    """Import path of the :class:`~perceiver_plugins.serving.exporting.Backend`."""

    def write(self, loaded: LoadedModel, target: str) -> None:
        """Export a model with as many dynamic sizes as possible, and compare it with the original in several sizes.

        Raises:
            UserError: if the model cannot be exported.
        """
        from perceiver_plugins.serving.exporting import write

        write(self._backend(), loaded, target)

    def compute(self, target: str, batch: Batch) -> Any:
        """Compute the output tensors of an exported model, by name."""
        return self._backend().load(target)(batch)

    def expected(self, model: Model, batch: Batch) -> Any:
        """Compute the output tensors of the original model, by name."""
        from perceiver_plugins.serving.served_model import compute_outputs

        return compute_outputs(model, batch)

    def signature(self, target: str) -> dict[str, Any]:
        """Return the description in a file: that of the original model, and its inputs and outputs."""
        return json.loads(self._backend().description(target))

    def _backend(self) -> Backend:
        return resolve_import_path(self.backend)()


class TorchExportFormat(ServingFormat):
    """Program of ``torch.export``: ``torch.export.load(FILE).module()(batch)``."""

    backend = "perceiver_plugins.serving.programs:Programs"


class OnnxFormat(ServingFormat):
    """ONNX model."""

    backend = "perceiver_plugins.serving.onnx_models:OnnxModels"
    needs = ("onnx", "onnxscript", "onnxruntime")
    """Packages that the format needs."""

    def refusal(self, loaded: LoadedModel) -> str | None:
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            return f"format 'onnx' needs {', '.join(missing)}: pip install 'perceiver-zoo[onnx]'"
        return None
