"""Classes and numbers of any input, whatever it is. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

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

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
