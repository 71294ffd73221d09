"""Data modules of text."""

from perceiver_plugins.text.data.embedded import LanguagesDataModule, PythonCodeDataModule, PythonDocsDataModule
from perceiver_plugins.text.data.hub import (
    BookCorpusDataModule,
    Enwik8DataModule,
    HubTextDataModule,
    ImdbDataModule,
    WikipediaDataModule,
    WikiTextDataModule,
)
from perceiver_plugins.text.data.local import TextFilesDataModule
from perceiver_plugins.text.data.module import TextDataModule

__all__ = [
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
]
