"""Fixtures of the serving tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perceiver_core import PerceiverConfig, PerceiverIO
from perceiver_plugins.serving.exporting import Backend
from perceiver_registry import assemble, registry
from perceiver_registry.testing.subjects import AdapterSubject


@pytest.fixture
def onnx_backend(request: pytest.FixtureRequest) -> Backend:
    """Backend for ONNX; skips the test if onnxruntime is missing."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    request.getfixturevalue("cached_operators")
    from perceiver_plugins.serving.onnx_models import OnnxModels

    return OnnxModels()


@pytest.fixture
def small_model(randomise: Callable[[Any], Any]) -> Callable[..., PerceiverIO]:
    """Factory of a small model with random weights from the names of two adapters."""

    def small_model(encoder: str, decoder: str, **values: Any) -> PerceiverIO:
        parts = [
            AdapterSubject(registry().get(kind, name).spec, {}).config()  # type: ignore[call-overload]
            for kind, name in (("input", encoder), ("output", decoder))
        ]
        config = PerceiverConfig(*parts, **{"num_latents": 4, "num_latent_channels": 16, **values})
        return randomise(assemble(config)).eval()

    return small_model
