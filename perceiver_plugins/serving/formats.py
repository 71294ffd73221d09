"""The formats for serving. Imports nothing heavy: what a format does, it imports when it does it."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING, Any, ClassVar

from perceiver_registry.formats import Format, LoadedModel
from perceiver_registry.import_paths import resolve_import_path

if TYPE_CHECKING:
    from perceiver_core import Batch, PerceiverIO
    from perceiver_plugins.serving.exporting import Backend


class ServingFormat(Format):
    """A format that is only written, and run without this project."""

    backend: ClassVar[str]
    """Place of the :class:`~perceiver_plugins.serving.exporting.Backend`."""

    def write(self, loaded: LoadedModel, target: str) -> None:
        """Exports the model with sizes as open as it allows, and compares it with the original in several of them.

        Raises:
            UserError: if the model cannot be exported.
        """
        from perceiver_plugins.serving.exporting import write

        write(self._backend(), loaded, target)

    def compute(self, target: str, batch: Batch) -> Any:
        """The tensors that it answers, by name."""
        return self._backend().load(target)(batch)

    def expected(self, model: PerceiverIO, batch: Batch) -> Any:
        """The same, of the original."""
        from perceiver_plugins.serving.answers import answer

        return answer(model, batch)

    def signature(self, target: str) -> dict[str, Any]:
        """What the file says of itself: the original's description, and its inputs and outputs."""
        return json.loads(self._backend().description(target))

    def _backend(self) -> Backend:
        return resolve_import_path(self.backend)()


class TorchExportFormat(ServingFormat):
    """A program of ``torch.export``: ``torch.export.load(FILE).module()(batch)``."""

    backend = "perceiver_plugins.serving.programs:Programs"


class OnnxFormat(ServingFormat):
    """An ONNX model."""

    backend = "perceiver_plugins.serving.onnx_models:OnnxModels"
    needs = ("onnx", "onnxscript", "onnxruntime")
    """Optional dependencies."""

    def refusal(self, loaded: LoadedModel) -> str | None:
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            return f"format 'onnx' needs {', '.join(missing)}: pip install 'perceiver-zoo[onnx]'"
        return None
