"""Data modules of text that is on this machine: Python's own, and the user's files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import datasets

from perceiver_plugins.text.data.corpora import python_docs, python_docs_version, split_of
from perceiver_plugins.text.data.hub import check_fraction
from perceiver_plugins.text.data.module import TextDataModule
from perceiver_plugins.text.data.prepared import split_documents, write_documents
from perceiver_plugins.text.data.splits import file_states
from perceiver_plugins.training.errors import DataError
from perceiver_plugins.training.files import Piece, find_files, read_documents


class PythonDocsDataModule(TextDataModule):
    """English text that comes with Python: its reference topics and its library's docstrings (2 MB).

    Nothing is downloaded. The defaults suit a small model on a CPU: single bytes are masked, as those can be
    told from their neighbours within minutes of training, and whole words cannot.

    Args:
        max_seq_len: Tokens per example, at most.
        mask_words: Mask whole words (true) or single tokens (false).
        batch_size: Examples per batch and device, in training.
    """

    cache_name = "python-docs"

    def __init__(self, max_seq_len: int = 128, mask_words: bool = False, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(max_seq_len=max_seq_len, mask_words=mask_words, batch_size=batch_size, **kwargs)

    def source_key(self) -> dict[str, Any]:
        return {"python": python_docs_version()}

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        pieces: dict[str, list[Piece]] = {"train": [], "validation": [], "test": []}
        for name, text in python_docs():
            pieces[split_of(name)].append(Piece(text + "\n\n"))
        return {split: write_documents(work / f"{split}.arrow", texts) for split, texts in pieces.items()}


class TextFilesDataModule(TextDataModule):
    """Your own text: .txt, .jsonl, .json, .csv, .tsv and .parquet files, also compressed.

    Compressed files end in .gz, .xz, .bz2 or .zst.

    A .txt file, or any other that is UTF-8 text, is one document; a row of the others is. Each of the flags
    for files takes a file, a folder (all such files in it), a pattern such as ``data/*.txt``, or a list of
    these.

    Args:
        train_files: Files to train on.
        val_files: Files to validate on; null: a part of the training data is set aside.
        test_files: Files to test on.
        text_column: Name of the column (or field) with the text, in formats that have columns.
        val_fraction: The part that is set aside: some of the documents or, where they are few, the end of
            each.
    """

    cache_name = "files"
    missing_split: ClassVar[dict[str, str]] = {
        **TextDataModule.missing_split,
        "validation": "there is no text for validation: name some with val_files, or set aside more with val_fraction",
        "test": "there is no test data: name some with test_files",
    }

    def __init__(
        self,
        train_files: str | list[str],
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        text_column: str = "text",
        val_fraction: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.text_column = text_column
        self.val_fraction = val_fraction
        self.files = {"train": find_files(train_files, "train_files")}
        if val_files is not None:
            self.files["validation"] = find_files(val_files, "val_files")
        if test_files is not None:
            self.files["test"] = find_files(test_files, "test_files")
        for split, flag in (("validation", "val_files"), ("test", "test_files")):
            if both := set(self.files["train"]).intersection(self.files.get(split, [])):
                raise DataError(f"{flag}: {min(both)} is among train_files too; take it out of one of them")

    def source_key(self) -> dict[str, Any]:
        return {
            "files": {split: file_states(files) for split, files in self.files.items()},
            "column": self.text_column,
            "val_fraction": self.val_fraction,
        }

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        loaded = {}
        for split, files in self.files.items():
            documents = itertools.chain.from_iterable(read_documents(file, self.text_column) for file in files)
            loaded[split] = write_documents(work / f"{split}.arrow", documents)
        if "validation" not in loaded:
            loaded["train"], loaded["validation"] = split_documents(loaded["train"], self.val_fraction, work)
        return loaded
