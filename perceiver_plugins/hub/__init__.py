"""The zoo's models in Hugging Face's ecosystem: its folders, Auto classes and pipelines."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.hub.checkpoints": ("from_checkpoint", "load"),
    "perceiver_plugins.hub.config": ("ZooConfig",),
    "perceiver_plugins.hub.images": ("ZooImageProcessor",),
    "perceiver_plugins.hub.models": (
        "ZooForImageClassification",
        "ZooForMaskedLM",
        "ZooForSequenceClassification",
        "ZooForTokenClassification",
        "ZooModel",
        "model_class",
    ),
    "perceiver_plugins.hub.registration": ("register",),
    "perceiver_plugins.hub.tokenizer": ("ZooTokenizer",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
