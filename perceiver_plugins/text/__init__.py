"""Text: language models, their data and their adapters. What is exported is imported when it is used."""

from __future__ import annotations

from perceiver_plugins.lazy import lazy_exports

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
    "perceiver_plugins.huggingface.text": ("convert_config",),
    "perceiver_plugins.text.lightning": ("LitLanguageModel",),
    "perceiver_plugins.text.model": ("LanguageModel",),
    "perceiver_plugins.text.reading": ("TextReader",),
}

__getattr__, __all__ = lazy_exports(__name__, _EXPORTS)
