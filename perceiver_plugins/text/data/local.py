"""The data module of the user's own files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import datasets

from perceiver_plugins.sdk.data.files import FLAGS, Row, find_files, refuse_shared_files
from perceiver_plugins.sdk.data.left_out import LeftOut
from perceiver_plugins.sdk.data.splits import check_fraction
from perceiver_plugins.sdk.data.table_rows import check_delimiter
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.text.data.labels import Target
from perceiver_plugins.text.data.module import TextDataModule
from perceiver_plugins.text.data.prepared import split_documents, write_documents
from perceiver_plugins.text.data.splits import file_states, read_files, rows_of_files


class TextFilesDataModule(TextDataModule):
    """Your own text: .txt, .jsonl, .json, .csv, .tsv and .parquet files, also compressed.

    Compressed files end in .gz, .xz, .bz2 or .zst.

    A .txt file, or any other that is UTF-8 text, is one document; a row of the others is. Each of the flags
    for files takes a file, a folder (all such files in it), a pattern such as ``data/*.txt``, or a list of
    these. Labels are columns: .txt files cannot have any.

    Args:
        train_files: Files to train on; null: only evaluate a trained model, which knows its classes.
        val_files: Files to validate on; null: a part of the training data is set aside.
        test_files: Files to test on.
        text_column: Name of the column (or field) with the text, in formats that have columns.
        label_column: Name of the column with what is to be predicted: target=class, a text, whole number or boolean;
            target=token, a list of such; target=number, a number, or several columns as a list.
        tokens_column: target=token: name of the column with lists of words, whose labels label_column lists. Words are
            joined by spaces. A word's label goes to each of its bytes or, with another tokenizer, to its first token.
            null: label_column has a label for each character of the text.
        label_names: target=class or token: names for the labels 0, 1, ... in the files, or the order of the labels
            if they are names; null: the labels of the training data, sorted.
        delimiter: Character between the columns of .csv and .tsv files, such as ';' or tab; null: a comma, or a tab in
            .tsv files.
        val_fraction: The part that is set aside: some of the documents (of each class, with target=class) or, with
            target=masked where they are few, the end of each.
    """

    cache_name = "files"
    targets: ClassVar[tuple[Target, ...]] = ("masked", "class", "number", "token")
    missing_split: ClassVar[dict[str, str]] = {
        **TextDataModule.missing_split,
        "validation": "there is no text for validation: name some with val_files, or set aside more with val_fraction",
        "test": "there is no test data: name some with test_files",
    }

    def __init__(
        self,
        train_files: str | list[str] | None = None,
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        text_column: str = "text",
        label_column: str | list[str] = "label",
        tokens_column: str | None = "tokens",
        label_names: list[str] | None = None,
        delimiter: str | None = None,
        val_fraction: float = 0.05,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction)
        self.text_column = text_column
        self.label_column = label_column
        self.tokens_column = tokens_column
        self._label_names = label_names
        self.val_fraction = val_fraction
        self.delimiter = check_delimiter(delimiter)
        if self.target != "masked":
            self.new_labels(label_names)  # what does not go together is an error at once
        given = {"train": train_files, "validation": val_files, "test": test_files}
        self.files = {split: find_files(files, FLAGS[split]) for split, files in given.items() if files is not None}
        refuse_shared_files({FLAGS[split]: files for split, files in self.files.items()})

    def source_key(self) -> dict[str, Any]:
        if "train" not in self.files and not self.known:
            raise DataError("train_files is missing: name files to train on")
        known = {} if "train" in self.files else {"known": self.known_facts}
        return known | {
            "files": {split: file_states(files) for split, files in self.files.items()},
            "column": self.text_column,
            "delimiter": self.delimiter,
            "val_fraction": self.val_fraction,
        }

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

    def load_rows(self) -> dict[str, Iterable[Row]]:
        columns = self.new_labels(self._label_names).columns
        return {split: rows_of_files(files, columns, self.delimiter) for split, files in self.files.items()}
