"""The zoo's models in Hugging Face's ecosystem: its folders, Auto classes and pipelines."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

_EXPORTS = {
    "perceiver_plugins.huggingface.wrap": ("from_checkpoint", "load"),
    "perceiver_plugins.huggingface.zoo_config": ("ZooConfig",),
    "perceiver_plugins.huggingface.image_processor": ("ZooImageProcessor",),
    "perceiver_plugins.huggingface.zoo_models": (
        "ZooForImageClassification",
        "ZooForMaskedLM",
        "ZooForSequenceClassification",
        "ZooForTokenClassification",
        "ZooModel",
        "model_class",
    ),
    "perceiver_plugins.huggingface.registration": ("register",),
    "perceiver_plugins.huggingface.zoo_tokenizer": ("ZooTokenizer",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
