"""Text: language models, their data and their adapters. What is exported is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "perceiver_core": ("PerceiverConfig",),
    "perceiver_plugins.text.adapters": ("TextInputAdapter", "TextOutputAdapter", "TiedTextOutputAdapter"),
    "perceiver_plugins.text.config": ("TextDecoderConfig", "TextEncoderConfig"),
    "perceiver_plugins.text.data": (
        "BookCorpusDataModule",
        "Enwik8DataModule",
        "HubTextDataModule",
        "ImdbDataModule",
        "LanguagesDataModule",
        "PythonCodeDataModule",
        "PythonDocsDataModule",
        "TextDataModule",
        "TextFilesDataModule",
        "WikiTextDataModule",
        "WikipediaDataModule",
    ),
    "perceiver_plugins.text.fill_mask": ("Filling", "Guess", "MaskFiller"),
    "perceiver_plugins.text.huggingface": ("convert_config",),
    "perceiver_plugins.text.lightning": ("LitLanguageModel",),
    "perceiver_plugins.text.model": ("LanguageModel",),
    "perceiver_plugins.text.reading": ("TextReader",),
}
_PLACES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [*_PLACES]


def __getattr__(name: str) -> Any:
    # The plugin's specs live in this package, and listing them must not import torch.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
