"""Specs of the serving plugin. Does not import torch."""

from __future__ import annotations

from perceiver_registry import FormatSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"


@hookimpl
def perceiver_formats() -> list[FormatSpec]:
    return [
        FormatSpec(
            name="torch-export",
            format="perceiver_plugins.serving.formats:TorchExportFormat",
            summary="a program of torch.export, which only needs torch to run",
            writes=True,
            suffixes=(".pt2",),
        ),
        FormatSpec(
            name="onnx",
            format="perceiver_plugins.serving.formats:OnnxFormat",
            summary="an ONNX model, for onnxruntime and other runtimes",
            writes=True,
            suffixes=(".onnx",),
        ),
    ]
