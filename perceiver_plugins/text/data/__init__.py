"""Data modules for text."""

from perceiver_plugins.text.data.causal import (
    CausalBookCorpusDataModule,
    CausalEnwik8DataModule,
    CausalHubTextDataModule,
    CausalImdbDataModule,
    CausalPythonDocsDataModule,
    CausalTextDataModule,
    CausalTextFilesDataModule,
    CausalWikipediaDataModule,
    CausalWikiTextDataModule,
)
from perceiver_plugins.text.data.embedded import (
    LanguagesDataModule,
    MaskedLanguagesDataModule,
    MaskedPythonCodeDataModule,
    PythonCodeDataModule,
    PythonDocsDataModule,
)
from perceiver_plugins.text.data.hub import (
    BookCorpusDataModule,
    Enwik8DataModule,
    HubTextDataModule,
    ImdbDataModule,
    LabelledHubTextDataModule,
    LabelledImdbDataModule,
    WikipediaDataModule,
    WikiTextDataModule,
)
from perceiver_plugins.text.data.labelled_module import LabelledTextDataModule
from perceiver_plugins.text.data.local import LabelledTextFilesDataModule, TextFilesDataModule
from perceiver_plugins.text.data.module import DocumentDataModule, TextDataModule

__all__ = [
    "BookCorpusDataModule",
    "CausalBookCorpusDataModule",
    "CausalEnwik8DataModule",
    "CausalHubTextDataModule",
    "CausalImdbDataModule",
    "CausalPythonDocsDataModule",
    "CausalTextDataModule",
    "CausalTextFilesDataModule",
    "CausalWikiTextDataModule",
    "CausalWikipediaDataModule",
    "DocumentDataModule",
    "Enwik8DataModule",
    "HubTextDataModule",
    "ImdbDataModule",
    "LabelledHubTextDataModule",
    "LabelledImdbDataModule",
    "LabelledTextDataModule",
    "LabelledTextFilesDataModule",
    "LanguagesDataModule",
    "MaskedLanguagesDataModule",
    "MaskedPythonCodeDataModule",
    "PythonCodeDataModule",
    "PythonDocsDataModule",
    "TextDataModule",
    "TextFilesDataModule",
    "WikiTextDataModule",
    "WikipediaDataModule",
]
