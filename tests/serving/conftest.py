"""What the tests of serving share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from perceiver_core import PerceiverConfig, PerceiverIO
from perceiver_plugins.serving.exporting import Backend
from perceiver_registry import assemble, registry
from perceiver_registry.testing.subjects import AdapterSubject


@pytest.fixture
def onnx_backend() -> Backend:
    """Makes of a traced model one that onnxruntime runs."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    from perceiver_plugins.serving.onnx_models import OnnxModels

    return OnnxModels()


@pytest.fixture
def small_model(randomise: Callable[[Any], Any]) -> Callable[..., PerceiverIO]:
    """A function that assembles a small model with random weights of two adapters' names."""

    def small_model(encoder: str, decoder: str, **values: Any) -> PerceiverIO:
        parts = [
            AdapterSubject(registry().get(kind, name).spec, {}).config()  # type: ignore[call-overload]
            for kind, name in (("input", encoder), ("output", decoder))
        ]
        config = PerceiverConfig(*parts, **{"num_latents": 4, "num_latent_channels": 16, **values})
        return randomise(assemble(config)).eval()

    return small_model
