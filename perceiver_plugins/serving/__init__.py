"""Models as files for serving: programs of ``torch.export`` and ONNX."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.serving.answers": ("ServedModel", "answer"),
    "perceiver_plugins.serving.exporting": ("Export", "Port", "export"),
    "perceiver_plugins.serving.formats": ("OnnxFormat", "TorchExportFormat"),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
