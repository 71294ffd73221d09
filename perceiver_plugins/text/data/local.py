"""Data modules for the user's own text files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import datasets

from perceiver_plugins.sdk.data.files import Row, find_split_files
from perceiver_plugins.sdk.data.left_out import LeftOut
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.data.table_rows import check_delimiter
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.labelled import Documents, distinct_per_class
from perceiver_plugins.text.data.labelled_module import ColumnLabelsDataModule
from perceiver_plugins.text.data.module import DocumentDataModule, TextDataModule, UnlabelledTextDataModule
from perceiver_plugins.text.data.prepared import split_documents, write_documents
from perceiver_plugins.text.data.splits import file_states, read_files, rows_of_files


class TextFiles(DocumentDataModule):
    """Base class for documents in the user's files.

    Args:
        train_files: Files to train on; null: only evaluate a trained model, with which its classes are stored.
        val_files: Files to validate on; null: hold out a fraction of the training data.
        test_files: Files to test on.
        text_column: Name of the column (or field) with the text, in formats that have columns.
        delimiter: Character between the columns of .csv and .tsv files, such as ';' or tab; null: a comma, or a tab in
            .tsv files.
        val_fraction: Fraction of the documents (of each class, with target=class) to hold out for validation. If
            masked text has only a few documents, the end of each document is held out instead.
    """

    cache_name = "files"
    missing_split: ClassVar[dict[str, str]] = {
        **DocumentDataModule.missing_split,
        "validation": "no text for validation (name files with val_files, or raise val_fraction)",
        "test": "no test data (name files with test_files)",
    }

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        for number in range(12):
            text = " ".join(f"Sentence {index} of text {number}." for index in range(number + 1))
            (folder / f"{number}.txt").write_text(text, encoding="utf-8")
        return {
            "train_files": str(folder),
            "cache_dir": str(folder / "cache"),
            "val_fraction": 0.25,
            "max_seq_len": 24,
            "batch_size": 4,
        }

    def __init__(
        self,
        train_files: str | list[str] | None = None,
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        text_column: str = "text",
        delimiter: str | None = None,
        val_fraction: float = 0.05,
        **kwargs: Any,
    ) -> None:
        self.text_column = text_column  # set first: label columns are checked against it
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.val_fraction = val_fraction
        self.delimiter = check_delimiter(delimiter)
        self.files = find_split_files(train_files, val_files, test_files)

    def source_key(self) -> dict[str, Any]:
        if "train" not in self.files and not self.known:
            raise DataError("train_files: missing (name files to train on)")
        known = {} if "train" in self.files else {"known": self.known_facts}
        return known | {
            "files": {split: file_states(files) for split, files in self.files.items()},
            "column": self.text_column,
            "delimiter": self.delimiter,
            "val_fraction": self.val_fraction,
        }


class UnlabelledTextFiles(TextFiles, UnlabelledTextDataModule):
    """Documents without labels in the user's files."""

    def load_documents(self, work: Path) -> dict[str, datasets.Dataset]:
        loaded = {}
        for split, files in self.files.items():
            left_out = LeftOut()
            documents = read_files(files, self.text_column, self.delimiter, left_out)
            loaded[split] = write_documents(work / f"{split}.arrow", documents)
            self.notes += left_out.lines(split)
        if "validation" not in loaded and "train" in loaded:
            loaded["train"], loaded["validation"] = split_documents(loaded["train"], self.val_fraction, work)
        return loaded


class TextFilesDataModule(UnlabelledTextFiles, TextDataModule):
    """Your own text, for masked language modelling: .txt, .jsonl, .json, .csv, .tsv and .parquet files.

    Files may be compressed, with the suffixes .gz, .xz, .bz2 or .zst. A .txt file, or any other file of UTF-8 text, is
    one document; in tables, each row is a document. Each of the flags for files takes a file, a folder (all such files
    in it), a pattern such as ``data/*.txt``, or a list of these.
    """


class LabelledTextFilesDataModule(TextFiles, ColumnLabelsDataModule):
    """Your own labelled text: .jsonl, .json, .csv, .tsv and .parquet files.

    Files may be compressed, with the suffixes .gz, .xz, .bz2 or .zst. Each row is a document, with labels in columns.
    Each of the flags for files takes a file, a folder (all such files in it), a pattern such as ``data/*.csv``, or a
    list of these.
    """

    def load_rows(self) -> dict[str, Iterable[Row]]:
        columns = self.new_labels(self._label_names).columns
        return {split: rows_of_files(files, columns, self.delimiter) for split, files in self.files.items()}

    def examples(self, split: str) -> Any:
        is_held_out = split == "validation" and split not in self.files
        if is_held_out and split not in self.split_datasets and "train" in self.split_datasets:
            self._refuse_equal_texts(self.split_datasets["train"].documents)
        return super().examples(split)

    @staticmethod
    def _refuse_equal_texts(documents: Documents) -> None:
        """Raise DataError if equal texts leave none to hold out for validation."""
        size, distinct = len(documents.starts) - 1, distinct_per_class(documents)
        is_single = max(distinct.values()) == 1
        if distinct.total() == size and not is_single:
            return
        of_each = ", one of each class" if is_single and len(distinct) > 1 else ""
        remedy = "add other texts" if is_single else "raise val_fraction"
        raise DataError(
            "no text for validation: equal texts are kept in one split; "
            f"distinct texts: {distinct.total():,} of {size:,}{of_each} (name files with val_files, or {remedy})"
        )


TextFilesDataModule.other_targets = LabelledTextFilesDataModule
