"""The data module of the user's tables."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_plugins.sdk.data.class_names import ClassNames
from perceiver_plugins.sdk.data.files import FLAGS, file_format, find_files, read_rows, refuse_shared_files
from perceiver_plugins.sdk.data.splits import check_fraction, permutation
from perceiver_plugins.sdk.data.statistics import missing_targets
from perceiver_plugins.sdk.data.table_rows import check_delimiter, column_names
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table.columns import numbers
from perceiver_plugins.table.data import Table, TableDataModule, Tables
from perceiver_registry import UserError

FEWEST_COUNTED = 20
"""Rows from which on a column that counts them is taken for an index; arbitrary."""


class TableFilesDataModule(TableDataModule):
    """Your own tables: .csv, .tsv, .jsonl, .json and .parquet files, also compressed.

    Compressed files end in .gz, .xz, .bz2 or .zst. Each of the flags for files takes a file, a folder (all such files
    in it), a pattern such as ``data/*.csv``, or a list of these. Each row is an example. A number is missing where
    nothing stands, null, NA or nan; a row in which the class is missing is an error.

    Args:
        train_files: Files to train on; null: only evaluate a trained model, which knows its columns and classes.
        val_files: Files to validate on; null: some rows of the training data are set aside.
        test_files: Files to test on.
        target: What is to be predicted: numbers or a class.
        label_column: Name of the column with what is to be predicted; for numbers also a list of several.
        feature_columns: Names of the columns with the numbers to predict it from; null: all others, but for the row
            index that pandas writes into tables.
        delimiter: Character between the columns of .csv and .tsv files, such as ';' or tab; null: a comma, or a tab in
            .tsv files.
        val_fraction: The part of the rows that is set aside.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there are no rows for training",
        "validation": "there are no rows for validation: name files in val_files, or set aside more by val_fraction",
        "test": "there is no test data: name some in test_files",
    }

    def __init__(
        self,
        train_files: str | list[str] | None = None,
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        target: Literal["number", "class"] = "number",
        label_column: str | list[str] = "label",
        feature_columns: list[str] | None = None,
        delimiter: str | None = None,
        val_fraction: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(target, **kwargs)
        check_fraction(val_fraction)
        self.label_columns = [label_column] if isinstance(label_column, str) else list(label_column)
        if not self.label_columns or (target == "class" and len(self.label_columns) > 1):
            raise UserError(f"label_column={label_column}: one column must be named, or several of numbers")
        if feature_columns is not None and not feature_columns:
            raise UserError("feature_columns=[]: there must be a column to predict from")
        if both := set(self.label_columns).intersection(feature_columns or []):
            raise UserError(f"feature_columns: {min(both)!r} is the label_column; a model would just repeat it")
        self.feature_columns = feature_columns
        self.delimiter = check_delimiter(delimiter)
        self.val_fraction = val_fraction
        given = {"train": train_files, "validation": val_files, "test": test_files}
        self.files = {split: find_files(files, FLAGS[split]) for split, files in given.items() if files is not None}
        refuse_shared_files({FLAGS[split]: files for split, files in self.files.items()})

    def load(self) -> Tables:
        if "train" not in self.files and not self.known:
            raise DataError("train_files is missing: name files to train on")
        names = self.feature_columns or self._other_columns()
        classes = ClassNames(self.label_columns[0]) if self.target == "class" else None
        if classes is not None and "train" not in self.files:
            classes.recall(self.known["label_names"])
        tables = {}
        for split, files in self.files.items():  # those to train on first
            tables[split] = self._read(files, names, classes)
            if split == "train" and classes is not None and len(tables[split].labels):
                classes.settle()
        if classes is not None:
            tables = {split: numbered(table, classes.numbers) for split, table in tables.items()}
        for note in self._notes(tables, names, classes):
            rank_zero_warn(note)
        if "validation" not in tables and "train" in tables:
            rows = permutation(len(tables["train"].labels))
            held_out, kept = np.split(rows, [round(len(rows) * self.val_fraction)])
            tables = {**tables, "train": tables["train"].take(kept), "validation": tables["train"].take(held_out)}
        return Tables(names, classes.names if classes is not None else self.label_columns, tables)

    def description(self) -> dict[str, Any]:
        return super().description() | ({"delimiter": self.delimiter} if self.delimiter else {})

    def _other_columns(self) -> list[str]:
        """The columns of the first file but for the labels', which all other files must have too.

        Without training data, those of the model.
        """
        if "train" not in self.files:
            names = list(self.known["columns"]["names"])
            for file in dict.fromkeys(file for files in self.files.values() for file in files):
                self._refuse_others(str(file), set(column_names(file, self.delimiter)[0]), names)
            return names
        first, *others = dict.fromkeys(file for files in self.files.values() for file in files)
        found, index = column_names(first, self.delimiter)
        names = [name for name in found if name not in self.label_columns]
        if not names:
            raise DataError(f"{first}: there is no column but for the label_column to predict it from")
        if index := [name for name in index if name not in self.label_columns]:
            rank_zero_warn(
                f"{first}: {' and '.join(map(_shown, index))} left out, as pandas writes it for the number of a row "
                "(feature_columns names columns to read)"
            )
        for file in others:
            self._refuse_others(str(file), set(column_names(file, self.delimiter)[0]), names)
        return names

    def _refuse_others(self, where: str, found: set[str], names: Sequence[str]) -> None:
        """Raise DataError if there are columns that are not read although no flag chooses the columns."""
        if others := found.difference(names, self.label_columns):
            source = f"in {self.files['train'][0]}" if "train" in self.files else "in the data of the model"
            raise DataError(
                f"{where}: the column {min(others)!r} is not {source}, whose columns are read "
                "(name the columns in feature_columns)"
            )

    def _read(self, files: Sequence[Path], names: Sequence[str], classes: ClassNames | None) -> Table:
        """The rows of files; a class is still its name."""
        columns = dict.fromkeys(names, "feature_columns") | dict.fromkeys(self.label_columns, "label_column")
        features = array("d")
        targets = array("d")
        labels: list[str] = []
        for file in files:
            is_json = file_format(file)[0] in (".json", ".jsonl")
            for place, row in read_rows(file, columns, self.delimiter):
                if is_json and self.feature_columns is None and len(row) > len(columns):
                    self._refuse_others(place, set(row), names)
                features.extend(numbers(row, names, place, "feature_columns"))
                if classes is None:
                    targets.extend(numbers(row, self.label_columns, place, "label_column"))
                else:
                    labels.append(classes.read(row[self.label_columns[0]], place))
        read = np.array(features).reshape(-1, len(names))
        if classes is None:
            return Table(read, np.array(targets).reshape(-1, len(self.label_columns)))
        return Table(read, np.array(labels))

    def _notes(self, tables: dict[str, Table], names: Sequence[str], classes: ClassNames | None) -> list[str]:
        """A line for each thing that whoever trains on the tables should know."""
        guessed = self.feature_columns is None and "train" in tables
        notes = counting_columns(names, tables["train"].features) if guessed else []
        if classes is not None:
            return notes + classes.similar()
        for split, table in tables.items():
            notes += missing_targets(self.label_columns, table.labels, split)
        return notes


def numbered(table: Table, numbers: dict[str, int]) -> Table:
    """A table whose classes are their numbers instead of their names."""
    return Table(table.features, np.array([numbers[name] for name in table.labels.tolist()], dtype=np.int64))


def counting_columns(names: Iterable[str], features: np.ndarray) -> list[str]:
    """A line for columns (rows, m) that count the rows, as an index does: they say nothing of an example."""
    rows = np.arange(len(features))
    counting = [
        name for name, column in zip(names, features.T, strict=True) if np.array_equal(column - column[:1], rows)
    ]
    if len(features) < FEWEST_COUNTED or not counting:
        return []
    return [
        f"the column {counting[0]!r} counts the rows of the training data; if it is an index, leave it out "
        "(feature_columns names columns to read)"
    ]


def _shown(name: str) -> str:
    return repr(name) if name.strip() else "the column without a name"
