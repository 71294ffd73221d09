"""Data module for the user's own tables."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from perceiver_plugins.sdk.data.column_reader import Cell, ColumnOptions, ColumnReader
from perceiver_plugins.sdk.data.files import file_format, find_split_files, read_rows
from perceiver_plugins.sdk.data.module import check_positive
from perceiver_plugins.sdk.data.multi_labels import MultiLabels, SingleLabels, class_reader
from perceiver_plugins.sdk.data.splits import check_fraction, permutation
from perceiver_plugins.sdk.data.statistics import missing_targets
from perceiver_plugins.sdk.data.table_rows import Row, check_delimiter, column_names, dictionary_columns
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table.data import Table, TableDataModule, Tables
from perceiver_plugins.table.embedded import describe_reader, fit_reader, object_array, report_cells
from perceiver_plugins.table.kinds import (
    INFERENCE_ROWS,
    choose_kinds,
    describe_kinds,
    named_kinds,
    refuse_other_kinds,
)
from perceiver_plugins.table.rows import RowReader, read_numbers
from perceiver_registry import UserError
from perceiver_registry.errors import some_of

MIN_INDEX_ROWS = 20
"""Fewest rows for a column of consecutive numbers to be reported as a row index; arbitrary."""

CELL_HINT = "feature_columns chooses the columns to read, categorical_columns those with categories"
"""Advice in messages about cells of another kind than their column."""


class TableFilesDataModule(TableDataModule):
    """Your own tables: .csv, .tsv, .jsonl, .json and .parquet files, also compressed.

    Compressed files end in .gz, .xz, .bz2 or .zst. Each of the flags for files takes a file, a folder (all such files
    in it), a pattern such as ``data/*.csv``, or a list of these. Each row is an example. An empty cell, null, NA and
    nan are missing values; a missing class is an error.

    Feature columns contain numbers, booleans, ISO dates, categories, texts or images. The first 10,000 training rows
    decide (:func:`~perceiver_plugins.table.kinds.infer_kind`), unless a flag names the column. A date has several
    numeric features: days since 1970-01-01 and its phases in year, week and, with a time, day. Texts and images have
    input adapters of their own (``--model.encoder.columns``).

    Args:
        train_files: Files to train on; null: only evaluate a trained model, which knows its columns and classes.
        val_files: Files to validate on; null: hold out some rows of the training data.
        test_files: Files to test on.
        target: Kind of labels: numbers or a class.
        label_column: Name of the label column, or a list of several: numbers or, with target=class, 0 and 1 for each of
            several classes. A column of lists has any number of classes for each row.
        feature_columns: Names of the feature columns; null: all columns except the label columns and the row index that
            pandas writes into tables.
        categorical_columns: Feature columns to read as categories, such as codes that are numbers.
        numeric_columns: Feature columns to read as numbers.
        date_columns: Feature columns to read as ISO dates, with or without a time of day.
        text_columns: Feature columns to read as texts.
        image_columns: Feature columns to read as images: paths of files, or their content in Parquet files.
        delimiter: Character between the columns of .csv and .tsv files, such as ';' or tab; null: a comma, or a tab in
            .tsv files.
        val_fraction: Fraction of the rows to hold out for validation.
        label_separator: target=class: separator of the classes in the label column, such as ',', for rows with any
            number of classes. null: a class, or a list of classes.
        tokenizer: Tokenizer of the text columns, as for text-files: train:auto, train:word, train:bpe or train:unigram
            train one for each column; bytes; a folder with a saved tokenizer, or a hub id.
        max_seq_len: Largest number of tokens of a text. Longer texts are cut at the end, and their number is reported.
        image_size: Height and width of the images of image columns, in pixels. Their centre crop is resized.
        image_folder: Folder that relative paths of images are relative to; null: the folder of the table's file.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "train_files: no rows",
        "validation": "no rows for validation (name files with val_files, or raise val_fraction)",
        "test": "no test data (name files with test_files)",
    }

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        rows = [f"{number / 2},{number % 3},{number}" for number in range(12)]
        file = folder / "rows.csv"
        file.write_text("\n".join(["width,height,label", *rows]), encoding="utf-8")
        return {"train_files": str(file), "batch_size": 4}

    def __init__(
        self,
        train_files: str | list[str] | None = None,
        val_files: str | list[str] | None = None,
        test_files: str | list[str] | None = None,
        target: Literal["number", "class"] = "number",
        label_column: str | list[str] = "label",
        feature_columns: list[str] | None = None,
        categorical_columns: list[str] | None = None,
        numeric_columns: list[str] | None = None,
        date_columns: list[str] | None = None,
        text_columns: list[str] | None = None,
        image_columns: list[str] | None = None,
        delimiter: str | None = None,
        val_fraction: float = 0.1,
        label_separator: str | None = None,
        tokenizer: str = ColumnOptions.tokenizer,
        max_seq_len: int = ColumnOptions.max_seq_len,
        image_size: int = ColumnOptions.image_size,
        image_folder: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(target, **kwargs)
        check_positive(max_seq_len=max_seq_len, image_size=image_size)
        self.column_options = ColumnOptions(tokenizer, max_seq_len, image_size, image_folder)
        check_fraction(val_fraction)
        self.label_columns = [label_column] if isinstance(label_column, str) else list(label_column)
        if not self.label_columns:
            raise UserError(f"label_column={label_column}: must name at least one column")
        if label_separator is not None and target != "class":
            raise UserError(f"label_separator={label_separator!r}: has no effect with target={target} (leave it out)")
        self.label_separator = label_separator
        if feature_columns is not None and not feature_columns:
            raise UserError("feature_columns=[]: must name at least one column")
        for flag, named in (("label_column", self.label_columns), ("feature_columns", feature_columns or [])):
            if twice := [name for name, count in Counter(named).items() if count > 1]:
                raise UserError(f"{flag}: {twice[0]!r} occurs more than once (remove one of them)")
        if shared := set(self.label_columns).intersection(feature_columns or []):
            raise UserError(f"feature_columns: {min(shared)!r} is a label_column (name columns to predict it from)")
        self.feature_columns = feature_columns
        self.kind_flags = {
            "categorical_columns": ("category", categorical_columns),
            "numeric_columns": ("number", numeric_columns),
            "date_columns": ("date", date_columns),
            "text_columns": ("text", text_columns),
            "image_columns": ("image", image_columns),
        }
        self.delimiter = check_delimiter(delimiter)
        if target == "class":
            class_reader(self.label_columns, label_separator)  # report invalid combinations now
        self.val_fraction = val_fraction
        self.files = find_split_files(train_files, val_files, test_files)

    def load(self) -> Tables:
        if "train" not in self.files and not self.known:
            raise DataError("train_files: missing (name files to train on)")
        names = self._in_trained_order(self.feature_columns or self._infer_feature_columns())
        classes = self._class_reader()
        kinds = self._kinds(names)
        trained = self.trained_columns
        rows = RowReader(names, kinds, trained.categories if trained else None)
        tables = self._read_splits(rows, classes)
        for warning in self._warnings(tables, rows, classes):
            rank_zero_warn(warning)
        if "validation" not in tables and "train" in tables:
            tables |= self._hold_out(tables["train"])
        readers = self._column_readers(tables, kinds)
        tables = {split: _with_examples(table, readers) for split, table in tables.items()}
        categories = settle_categories(rows, tables)
        for warning in [*report_cells(readers), *category_warnings(rows, tables), *rows.report()]:
            rank_zero_warn(warning)
        if kinds and "train" in tables:
            rank_zero_info(f"columns: {describe_kinds(names, kinds, categories)}")
        label_names = classes.names if classes is not None else self.label_columns
        described = {name: describe_reader(kinds[name], reader) for name, reader in readers.items()}
        return Tables(names, label_names, tables, kinds, categories, described)

    def _in_trained_order(self, names: list[str]) -> list[str]:
        """Return feature columns in the order of the model that is evaluated, resumed or started from, if any.

        Raises:
            UserError: If they are not the model's columns.
        """
        if self.trained_columns is None:
            return names
        trained = self.trained_columns.names
        if different := sorted(set(names).symmetric_difference(trained)):
            problem = "is not a column of the trained model" if different[0] in names else "is missing"
            raise UserError(f"feature_columns: {different[0]!r} {problem} (the model's columns: {some_of(trained)})")
        return trained

    def _kinds(self, names: Sequence[str]) -> dict[str, str]:
        """Return the kinds of the columns that do not contain numbers: known to the model, named by flags, or inferred.

        Raises:
            UserError: If a flag names a column that is not a feature column, or has another kind in the model.
        """
        chosen = named_kinds(self.kind_flags, names)
        if self.trained_columns is not None:
            kinds = self.trained_columns.kinds
            refuse_other_kinds(self.kind_flags, kinds)
            return dict(kinds)
        rows = [row for _, row in islice(self._rows(self.files["train"], names), INFERENCE_ROWS)]
        cells = {name: [row.get(name) for row in rows] for name in names}
        return choose_kinds(cells, chosen, dictionary_columns(self.files["train"][0]))

    def _column_readers(self, tables: Mapping[str, Table], kinds: Mapping[str, str]) -> dict[str, ColumnReader]:
        """Return the readers of the columns of texts and images: those of the model, or new ones.

        Args:
            tables: the data set, with the cells of these columns.
            kinds: kinds of the columns.

        Raises:
            UserError: If an option is not that of the model.
        """
        if self.trained_columns is not None:
            for reader in self.trained_columns.column_readers.values():
                reader.check_options(self.column_options)
            return self.trained_columns.column_readers
        cells = tables["train"].cells
        return {name: fit_reader(kinds[name], cells[name].tolist(), self.column_options) for name in cells}

    def _rows(self, files: Sequence[Path], names: Sequence[str]) -> Iterator[Row]:
        """Read the rows of files.

        Raises:
            DataError: If a file cannot be read, or if an object in a JSON file has a key that is not a column.
        """
        columns = dict.fromkeys(names, "feature_columns") | dict.fromkeys(self.label_columns, "label_column")
        for file in files:
            is_json = file_format(file)[0] in (".json", ".jsonl")
            for location, row in read_rows(file, columns, self.delimiter):
                if is_json and self.feature_columns is None and len(row) > len(columns):
                    self._refuse_unread_columns(location, set(row), names)
                yield location, row

    def description(self) -> dict[str, Any]:
        return super().description() | ({"delimiter": self.delimiter} if self.delimiter else {})

    def _infer_feature_columns(self) -> list[str]:
        """Return the feature columns of the first training file or, without training data, of the model.

        Raises:
            DataError: If the first file has no feature columns, or another file has additional columns.
        """
        files = list(dict.fromkeys(file for files in self.files.values() for file in files))
        if "train" in self.files:
            names = self._feature_columns_of(files.pop(0))
        else:
            names = self.trained_columns.names if self.trained_columns else []
        for file in files:
            self._refuse_unread_columns(str(file), set(column_names(file, self.delimiter)[0]), names)
        return names

    def _feature_columns_of(self, file: Path) -> list[str]:
        """Return the columns of a file except label columns and the row index that pandas writes."""
        found, index = column_names(file, self.delimiter)
        names = [name for name in found if name not in self.label_columns]
        if not names:
            raise DataError(f"{file}: no feature column (all columns are named by label_column)")
        if index := [name for name in index if name not in self.label_columns]:
            described = " and ".join(repr(name) if name.strip() else "the column without a name" for name in index)
            rank_zero_warn(
                f"{file}: {described} left out as the row index that pandas writes (to read it, name it in "
                "feature_columns)"
            )
        return names

    def _refuse_unread_columns(self, location: str, found: set[str], names: Sequence[str]) -> None:
        """Raise DataError if inferred feature columns would leave out some of the columns ``found``."""
        if unread := found.difference(names, self.label_columns):
            source = str(self.files["train"][0]) if "train" in self.files else "the model's training data"
            raise DataError(
                f"{location}: the column {min(unread)!r} is not in {source} (name the columns to read in "
                "feature_columns)"
            )

    def _class_reader(self) -> SingleLabels | MultiLabels | None:
        """Return the reader of the classes; None: the labels are numbers."""
        if self.target != "class":
            return None
        columns = dict.fromkeys(self.label_columns, "label_column")
        files = (file for files in self.files.values() for file in files)
        rows = (row for file in files for row in read_rows(file, columns, self.delimiter))
        return class_reader(self.label_columns, self.label_separator, rows)

    def _read_splits(self, rows: RowReader, classes: SingleLabels | MultiLabels | None) -> dict[str, Table]:
        """Read the files of all splits, the training split first, as its classes are those of the others."""
        if classes is None:
            return {split: self._read(files, rows, None) for split, files in self.files.items()}
        if "train" not in self.files:
            classes.recall(self.known["label_names"])
        tables = {}
        for split, files in self.files.items():
            tables[split] = self._read(files, rows, classes)
            if split == "train" and len(tables[split].labels):
                classes.settle()
        return {split: replace(table, labels=classes.encode(table.labels)) for split, table in tables.items()}

    def _read(self, files: Sequence[Path], rows: RowReader, classes: SingleLabels | MultiLabels | None) -> Table:
        """Read the rows of files; class labels are names at this stage."""
        features = array("d")
        targets = array("d")
        labels: list[Any] = []
        cells: dict[str, list[Cell]] = {name: [] for name in rows.embedded}
        num_rows = 0
        for file in files:
            for location, row in self._rows([file], rows.names):
                num_rows += 1
                features.extend(rows.read(row, location, CELL_HINT))
                for name, column in cells.items():
                    column.append(Cell(row.get(name), name, location, file.parent))
                if classes is None:
                    targets.extend(read_numbers(row, self.label_columns, location, "label_column"))
                else:
                    labels.append(classes.read(row, location))
        feature_array = np.array(features).reshape(num_rows, rows.width)
        columns = {name: object_array(column) for name, column in cells.items()}
        if classes is None:
            return Table(feature_array, np.array(targets).reshape(num_rows, len(self.label_columns)), columns)
        return Table(feature_array, object_array(labels), columns)

    def _hold_out(self, table: Table) -> dict[str, Table]:
        """Split the training data into "train" and "validation", the same for every seed."""
        rows = permutation(len(table.labels))
        held_out, kept = np.split(rows, [round(len(rows) * self.val_fraction)])
        return {"train": table.take(kept), "validation": table.take(held_out)}

    def _warnings(
        self, tables: dict[str, Table], rows: RowReader, classes: SingleLabels | MultiLabels | None
    ) -> list[str]:
        """Return warnings about suspicious columns, class names and missing targets."""
        names = rows.features
        inferred = self.feature_columns is None and "train" in tables
        warnings = index_warnings(names, tables["train"].features) if inferred else []
        if "train" in tables:
            warnings += constant_warnings(names, tables["train"].features)
        if classes is not None:
            return warnings + [note for split, table in tables.items() for note in classes.notes(table.labels, split)]
        for split, table in tables.items():
            warnings += missing_targets(self.label_columns, table.labels, split)
        return warnings


def _with_examples(table: Table, readers: Mapping[str, ColumnReader]) -> Table:
    """Replace the cells of texts and images by examples."""
    examples = {
        name: object_array([reader.read(cell) for cell in table.cells[name]]) for name, reader in readers.items()
    }
    return replace(table, cells=examples)


def settle_categories(rows: RowReader, tables: Mapping[str, Table]) -> dict[str, list[str]]:
    """Number the categories of the training rows, mark others as unseen in-place, and return the categories by column.

    The categories of a trained model are kept.
    """
    for index, vocabulary in enumerate(rows.vocabularies.values(), len(rows.features)):
        ids = {split: table.features[:, index] for split, table in tables.items()}
        vocabulary.settle(ids.pop("train", np.empty(0)), list(ids.values()))
    return {name: vocabulary.categories for name, vocabulary in rows.vocabularies.items()}


def category_warnings(rows: RowReader, tables: Mapping[str, Table]) -> list[str]:
    """Return a line for each column whose categories are different in most training rows, or the same in all."""
    if "train" not in tables:
        return []
    train, warnings = tables["train"].features, []
    for index, (name, vocabulary) in enumerate(rows.vocabularies.items(), len(rows.features)):
        count = len(vocabulary.categories)
        if len(train) >= MIN_INDEX_ROWS and 2 * count > len(train):
            warnings.append(
                f"the column {name!r} has {count:,} different values in {len(train):,} training rows (if they identify "
                "the rows, leave it out of feature_columns)"
            )
        elif len(np.unique(train[:, index])) == 1 < len(train):
            warnings.append(f"the column {name!r} is the same in all training rows (feature_columns leaves it out)")
    return warnings


def index_warnings(names: Iterable[str], features: np.ndarray) -> list[str]:
    """Return a warning if one of the first columns of ``features`` (rows, ...) counts the rows, as an index does."""
    rows = np.arange(len(features))
    counting = [
        name for name, column in zip(names, features.T, strict=False) if np.array_equal(column - column[:1], rows)
    ]
    if len(features) < MIN_INDEX_ROWS or not counting:
        return []
    return [
        f"the column {counting[0]!r} counts the rows of the training data (if it is an index, leave it out of "
        "feature_columns)"
    ]


def constant_warnings(names: Iterable[str], features: np.ndarray) -> list[str]:
    """Return a warning if some of the first columns of ``features`` (rows, ...) are empty or constant."""
    empty, constant = [], []
    for name, column in zip(names, features.T, strict=False):
        known = column[~np.isnan(column)]
        if not known.size:
            empty.append(repr(name))
        elif known.size == column.size > 1 and known.min() == known.max():
            constant.append(f"{name!r} ({known[0]:g})")
    found = [f"{kind} {', '.join(columns)}" for kind, columns in (("empty", empty), ("constant", constant)) if columns]
    if not found:
        return []
    return [f"columns without information in the training data: {'; '.join(found)} (feature_columns leaves them out)"]
