"""Classes and numbers of any input, whatever it is. What is exported is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "perceiver_plugins.classification.adapters": (
        "ClassificationOutputAdapter",
        "RegressionOutputAdapter",
        "TokenClassificationOutputAdapter",
    ),
    "perceiver_plugins.classification.config": (
        "ClassificationDecoderConfig",
        "RegressionDecoderConfig",
        "TokenClassificationDecoderConfig",
    ),
    "perceiver_plugins.classification.lightning": ("LitClassifier", "LitTokenClassifier"),
    "perceiver_plugins.classification.regression": ("LitRegressor",),
}
_PLACES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    # The plugin's specs live in this package, and listing them must not import torch.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
