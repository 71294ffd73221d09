"""Data modules of text for masked language modelling."""

from perceiver_plugins.text.data.hub import (
    BookCorpusDataModule,
    Enwik8DataModule,
    HubTextDataModule,
    ImdbDataModule,
    WikipediaDataModule,
    WikiTextDataModule,
)
from perceiver_plugins.text.data.local import PythonDocsDataModule, TextFilesDataModule
from perceiver_plugins.text.data.module import TextDataModule

__all__ = [
    "BookCorpusDataModule",
    "Enwik8DataModule",
    "HubTextDataModule",
    "ImdbDataModule",
    "PythonDocsDataModule",
    "TextDataModule",
    "TextFilesDataModule",
    "WikiTextDataModule",
    "WikipediaDataModule",
]
