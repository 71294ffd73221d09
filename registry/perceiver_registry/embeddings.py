"""The predictor of embeddings, which serves all tasks. The SDK is imported at the look-up."""

from __future__ import annotations

import importlib
from typing import Any

SDK = "perceiver_plugins.sdk.prediction.embedding"
"""Module that implements the predictor."""


def embedding_predictor() -> Any:
    """Return the class of predictors of embeddings."""
    return importlib.import_module(SDK).EmbeddingPredictor
