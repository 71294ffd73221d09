"""The data module of the user's tables."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from perceiver_plugins.table.columns import numbers
from perceiver_plugins.table.data import Table, TableDataModule, Tables, permutation
from perceiver_plugins.training.errors import DataError
from perceiver_plugins.training.files import find_files, read_rows
from perceiver_registry import UserError

FLAGS = {"train": "train_files", "validation": "val_files", "test": "test_files"}
"""The flags that name the files of each split."""


class TableFilesDataModule(TableDataModule):
    """Your own tables: .csv, .tsv, .jsonl, .json and .parquet files, also compressed.

    Compressed files end in .gz, .xz, .bz2 or .zst. Each of the flags for files takes a file, a folder (all such files
    in it), a pattern such as ``data/*.csv``, or a list of these. Each row is an example. A number is missing where
    nothing stands, null, NA or nan; a row in which the class is missing is an error.

    Args:
        train_files: Files to train on.
        val_files: Files to validate on; null: some rows of the training data are set aside.
        test_files: Files to test on.
        target: What is to be predicted: numbers or a class.
        label_column: Name of the column with what is to be predicted; for numbers also a list of several.
        feature_columns: Names of the columns with the numbers to predict it from; null: all others.
        val_fraction: The part of the rows that is set aside.
        batch_size: Examples per batch and device, in training.
        valid_batch_size: Examples per batch and device in validation and test; null: the same as batch_size.
        num_workers: Processes per device that load data; null: none on CPU, otherwise up to 8, depending on
            the cores.
        seed: Seed of the order; null: the seed of the run (seed_everything), or 0 if there is none.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there are no rows for training",
        "validation": "there are no rows for validation: name files in val_files, or set aside more by val_fraction",
        "test": "there is no test data: name some in test_files",
    }

    def __init__(
        self,
        train_files: str | list[str],
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        target: Literal["number", "class"] = "number",
        label_column: str | list[str] = "label",
        feature_columns: list[str] | None = None,
        val_fraction: float = 0.1,
        batch_size: int = 32,
        valid_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(target, batch_size, valid_batch_size, num_workers, seed)
        if not 0 < val_fraction < 1:
            raise UserError(f"val_fraction={val_fraction} must be more than 0 and less than 1")
        self.label_columns = [label_column] if isinstance(label_column, str) else list(label_column)
        if not self.label_columns or (target == "class" and len(self.label_columns) > 1):
            raise UserError(f"label_column={label_column}: one column must be named, or several of numbers")
        if feature_columns is not None and not feature_columns:
            raise UserError("feature_columns=[]: there must be a column to predict from")
        if both := set(self.label_columns).intersection(feature_columns or []):
            raise UserError(f"feature_columns: {min(both)!r} is the label_column; a model would just repeat it")
        self.feature_columns = feature_columns
        self.val_fraction = val_fraction
        given = {"train": train_files, "validation": val_files, "test": test_files}
        self.files = {split: find_files(files, FLAGS[split]) for split, files in given.items() if files is not None}
        for split in ("validation", "test"):
            if twice := set(self.files["train"]).intersection(self.files.get(split, [])):
                raise DataError(f"{FLAGS[split]}: {min(twice)} is among train_files too; take it out of one of them")

    def load(self) -> Tables:
        names = self.feature_columns or self._other_columns()
        tables = {split: self._read(files, names) for split, files in self.files.items()}
        if self.target == "number":
            label_names = self.label_columns
        else:
            label_names = class_names(tables["train"].labels.tolist())
            tables = {split: self._numbered(table, label_names, split) for split, table in tables.items()}
        if "validation" not in tables:
            rows = permutation(len(tables["train"].labels))
            held_out, kept = np.split(rows, [round(len(rows) * self.val_fraction)])
            tables = {**tables, "train": tables["train"].take(kept), "validation": tables["train"].take(held_out)}
        return Tables(names, label_names, tables)

    def _other_columns(self) -> list[str]:
        """The columns of the first file but for the labels'."""
        first = next(read_rows(self.files["train"][0], {}), None)
        if first is None:
            raise DataError(f"{self.files['train'][0]}: the file holds no row")
        place, row = first
        names = [name for name in row if name is not None and name not in self.label_columns]
        if not names:
            raise DataError(f"{place}: there is no column but for the label_column to predict it from")
        return names

    def _read(self, files: Sequence[Path], names: Sequence[str]) -> Table:
        """The rows of files; a class is still a text."""
        columns = dict.fromkeys(names, "feature_columns") | dict.fromkeys(self.label_columns, "label_column")
        features = array("d")
        labels: list[Any] = []
        for place, row in itertools.chain.from_iterable(read_rows(file, columns) for file in files):
            features.extend(numbers(row, names, place, "feature_columns"))
            if self.target == "number":
                labels.append(numbers(row, self.label_columns, place, "label_column"))
            else:
                labels.append(self._class(row, place))
        shape = (-1, len(self.label_columns)) if self.target == "number" else -1
        return Table(np.array(features).reshape(-1, len(names)), np.array(labels).reshape(shape))

    def _class(self, row: Mapping[str, Any], place: str) -> str:
        column = self.label_columns[0]
        label = row[column]
        if isinstance(label, float) and label.is_integer():
            label = int(label)  # what becomes of whole numbers in a column where some are missing
        if label is None or label == "" or label != label:
            raise DataError(f"{place}: the class in the column {column!r} is missing")
        if not isinstance(label, str | int):
            raise DataError(f"{place}: {column!r} is {label!r}, which names no class; target=number predicts numbers")
        return str(label).lower() if isinstance(label, bool) else str(label)

    def _numbered(self, table: Table, names: list[str], split: str) -> Table:
        number = {name: number for number, name in enumerate(names)}
        labels = table.labels.tolist()
        if unknown := sorted(set(labels).difference(names)):
            raise DataError(f"{FLAGS[split]}: the class {unknown[0]!r} does not occur in the training data")
        return Table(table.features, np.array([number[label] for label in labels], dtype=np.int64))


def class_names(labels: Iterable[str]) -> list[str]:
    """The classes that occur, whole numbers by their value, or else by the alphabet.

    Raises:
        DataError: If there are less than two.
    """
    names = sorted(set(labels))
    if len(names) < 2:
        raise DataError(f"the classes of the training data are all {', '.join(names) or 'missing'}: there must be two")
    try:
        return sorted(names, key=int)
    except ValueError:
        return names
