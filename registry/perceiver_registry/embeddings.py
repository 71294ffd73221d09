"""Look-up of the predictor of embeddings, which all tasks share. It imports the SDK."""

from __future__ import annotations

import importlib
from typing import Any

SDK = "perceiver_plugins.sdk.prediction.embedding"
"""Module of the predictor."""


def embedding_predictor() -> Any:
    """Import and return the class ``EmbeddingPredictor``."""
    return importlib.import_module(SDK).EmbeddingPredictor
