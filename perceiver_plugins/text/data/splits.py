"""Splits of a data set on the Hugging Face hub or in a local folder."""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc

from perceiver_plugins.sdk.data.files import (
    TABLES,
    Piece,
    Row,
    find_files,
    is_table,
    read_documents,
    read_rows,
    require_columns,
)
from perceiver_plugins.sdk.data.left_out import LeftOut
from perceiver_plugins.sdk.data.prepared_folder import file_checksum
from perceiver_plugins.sdk.errors import DataError, one_line
from perceiver_plugins.sdk.hub import hub
from perceiver_plugins.text.data.prepared import quiet_datasets, write_documents
from perceiver_registry.errors import surface_own_fault

SPLITS = {"train", "validation", "test"}

SPLIT_ALIASES = {
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "eval": "validation",
    "training": "train",
}
"""Other names of splits in file names."""


class Splits(ABC):
    """Source of the splits of a data set.

    Args:
        text_column: Name of the column with the text.

    Attributes:
        notes: Warnings about the documents that :meth:`load` returned, one line each.
    """

    def __init__(self, text_column: str) -> None:
        self.text_column = text_column
        self.notes: list[str] = []

    @abstractmethod
    def has(self, split: str) -> bool:
        """Check whether the data set has a split."""

    @abstractmethod
    def load(self, split: str, work: Path) -> datasets.Dataset:
        """Return the documents of a split, in the column ``text``.

        Args:
            split: Name of the split, or several joined by ``+``.
            work: Folder for temporary files.
        """

    @abstractmethod
    def stream(self, split: str) -> tuple[datasets.IterableDataset, str]:
        """Return an iterable of the documents of a split, and the name of their column."""

    @abstractmethod
    def rows(self, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
        """Yield the rows of a split like :func:`~perceiver_plugins.sdk.data.files.read_rows`.

        Args:
            split: Name of the split, or several joined by ``+``.
            columns: Required columns, each with the flag that names it.
        """

    def label_names(self, split: str, column: str) -> list[str] | None:
        """Return the names of the classes in a column of class indices; None if the data set does not name them."""
        return None

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """Return plain data that identifies the documents."""


def open_splits(
    dataset: str, subset: str | None, revision: str | None, text_column: str, delimiter: str | None = None
) -> Splits:
    """Open a data set of the hub or a local folder.

    Args:
        dataset: Hub id or local folder.
        subset: Name of the data set's part; of a local folder, the name of a subfolder (ignored if it does not exist).
        revision: Version on the hub.
        text_column: Name of the column with the text.
        delimiter: Character between the columns of .csv and .tsv files in a local folder.

    Raises:
        DataError: If ``dataset`` is the path of a missing folder.
    """
    folder = Path(dataset).expanduser()
    if not folder.is_dir():
        if folder.exists() or dataset.startswith((".", "/", "~")):
            raise DataError(f"dataset={dataset}: not a folder (name a hub id, or a folder with the data set's files)")
        return HubSplits(dataset, subset, revision, text_column)
    if subset and (folder / subset).is_dir():
        folder = folder / subset
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return SavedSplits(folder, text_column)
    return FileSplits(folder, text_column, delimiter)


class HubSplits(Splits):
    """A data set on the Hugging Face hub."""

    def __init__(self, name: str, subset: str | None, revision: str | None, text_column: str) -> None:
        super().__init__(text_column)
        self.name = name
        self.subset = subset
        self.revision = revision

    def key(self) -> dict[str, Any]:
        return {"hub": self.name, "subset": self.subset, "revision": self.revision, "column": self.text_column}

    def has(self, split: str) -> bool:
        try:
            with hub():
                names = datasets.get_dataset_split_names(self.name, self.subset, revision=self.revision)
        except Exception as error:
            surface_own_fault(error)
            raise self._failed(error) from error
        return split in names

    def load(self, split: str, work: Path) -> datasets.Dataset:
        # with progress bars, for the download
        documents = _text_only(self._load(split, streaming=False), self.text_column, self.name)
        self.notes += _missing_text_warnings(documents, split)
        return documents

    def stream(self, split: str) -> tuple[datasets.IterableDataset, str]:
        return self._load(split, streaming=True), self.text_column

    def rows(self, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
        return _rows_of(self._load(split, streaming=False), columns, f"{self.name}, split {split!r}")

    def label_names(self, split: str, column: str) -> list[str] | None:
        return _label_names(self._load(split, streaming=False), column)

    def _load(self, split: str, streaming: bool) -> Any:
        try:
            with hub():
                return datasets.load_dataset(
                    self.name, self.subset, split=split, revision=self.revision, streaming=streaming
                )
        # no network, no such data set, subset, revision or split: errors of the user
        except Exception as error:
            surface_own_fault(error)
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DataError:
        source = f"{self.name!r}" + (f", subset {self.subset!r}" if self.subset else "")
        return DataError(
            f"data set {source} could not be loaded from the Hugging Face hub: {one_line(error)} (a local folder with "
            "its files can be given instead)"
        )


class SavedSplits(Splits):
    """A folder written by ``save_to_disk`` of a ``datasets`` data set."""

    def __init__(self, folder: Path, text_column: str) -> None:
        super().__init__(text_column)
        self.folder = folder
        try:
            loaded = datasets.load_from_disk(str(folder))
        except Exception as error:
            surface_own_fault(error)
            raise DataError(f"{folder}: saved data set cannot be read: {one_line(error)}") from error
        self.splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}

    def key(self) -> dict[str, Any]:
        return {"files": file_states(sorted(self.folder.rglob("*.arrow"))), "column": self.text_column}

    def has(self, split: str) -> bool:
        return any(part in self.splits for part in _parts(split))

    def load(self, split: str, work: Path) -> datasets.Dataset:
        parts = [_text_only(part, self.text_column, str(self.folder)) for part in self._require(split)]
        self.notes += [note for part in parts for note in _missing_text_warnings(part, split)]
        return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)

    def rows(self, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
        location = f"{self.folder}, split {split!r}"
        return itertools.chain.from_iterable(_rows_of(part, columns, location) for part in self._require(split))

    def label_names(self, split: str, column: str) -> list[str] | None:
        return _label_names(self._require(split)[0], column)

    def _require(self, split: str) -> list[datasets.Dataset]:
        found = [self.splits[part] for part in _parts(split) if part in self.splits]
        if not found:
            raise DataError(f"{self.folder}: no split {split!r} (known: {', '.join(self.splits)})")
        return found

    def stream(self, split: str) -> tuple[datasets.IterableDataset, str]:
        documents = self.load(split, self.folder)
        return documents.to_iterable_dataset(num_shards=max(1, min(64, len(documents)))), "text"


class FileSplits(Splits):
    """A folder of files whose names, or whose folders' names, contain their split:
    ``train-00000-of-00041.parquet``, ``test/1.jsonl.gz``, ``wiki.valid.txt``. Without such names, all files belong
    to the split ``train``.
    """

    def __init__(self, folder: Path, text_column: str, delimiter: str | None = None) -> None:
        super().__init__(text_column)
        self.folder = folder
        self.delimiter = delimiter
        self.files = find_files(str(folder), "dataset")
        self.words = {file: _split_words(file.relative_to(folder)) for file in self.files}
        self.named = any(SPLITS & words for group in self.words.values() for words in group)

    def key(self) -> dict[str, Any]:
        return {"files": file_states(self.files), "column": self.text_column, "delimiter": self.delimiter}

    def find(self, split: str) -> list[Path]:
        """Return the files of a split, or of several splits joined by ``+``."""
        parts = set(_parts(split))
        if not self.named:
            return self.files if "train" in parts else []
        # the file's name takes precedence over its folders' (train/test_scores.txt is test data)
        known = SPLITS | parts
        found = []
        for file, groups in self.words.items():
            words = next((words & known for words in groups if words & known), set())
            if words & parts:
                found.append(file)
        return found

    def has(self, split: str) -> bool:
        return bool(self.find(split))

    def load(self, split: str, work: Path) -> datasets.Dataset:
        files = self._require(split)
        left_out = LeftOut()
        documents = read_files(files, self.text_column, self.delimiter, left_out)
        written = write_documents(work / "raw" / f"{re.sub(r'[^a-z0-9]+', '-', split.lower())}.arrow", documents)
        self.notes += left_out.lines(split)
        return written

    def rows(self, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
        # other files (README.txt, SOURCE.txt) have no labels
        if not (files := [file for file in self._require(split) if is_table(file)]):
            raise DataError(f"{self.folder}: no file with labels ({', '.join(TABLES)})")
        return rows_of_files(files, columns, self.delimiter)

    def stream(self, split: str) -> tuple[datasets.IterableDataset, str]:
        # files are the shards; each piece of a text file is a document
        with quiet_datasets():
            arguments = {"files": self._require(split), "column": self.text_column, "delimiter": self.delimiter}
            features = datasets.Features({"text": datasets.Value("large_string")})
            stream = datasets.IterableDataset.from_generator(_stream_files, gen_kwargs=arguments, features=features)
        return stream, "text"

    def _require(self, split: str) -> list[Path]:
        if not (files := self.find(split)):
            raise DataError(
                f"{self.folder}: no file or folder name contains the split {split!r} (the first file is "
                f"{self.files[0].name})"
            )
        return files


def file_states(files: list[Path]) -> list[list[Any]]:
    """Return path, size and checksum of each file, which identify its content regardless of modification times."""
    return [[str(file.absolute()), file.stat().st_size, file_checksum(file)] for file in files]


def read_files(files: Iterable[Path], text_column: str, delimiter: str | None, left_out: LeftOut) -> Iterator[Piece]:
    """Yield the documents of several files; see :func:`read_documents`."""
    return itertools.chain.from_iterable(read_documents(file, text_column, delimiter, left_out) for file in files)


def rows_of_files(files: Iterable[Path], columns: Mapping[str, str], delimiter: str | None = None) -> Iterator[Row]:
    """Yield the rows of several tables.

    Raises:
        DataError: If a file has no rows, and as :func:`~perceiver_plugins.sdk.data.files.read_rows`.
    """
    for file in files:
        empty = True
        for row in read_rows(file, columns, delimiter):
            empty = False
            yield row
        if empty:
            raise DataError(f"{file}: no rows")


def _rows_of(documents: datasets.Dataset, columns: Mapping[str, str], location: str) -> Iterator[Row]:
    require_columns(location, columns, documents.column_names)
    tables = documents.select_columns(list(columns)).with_format("arrow").iter(batch_size=1000)
    rows = (row for table in tables for row in table.to_pylist())
    yield from ((f"{location}, row {number}", row) for number, row in enumerate(rows, 1))


def _label_names(documents: datasets.Dataset, column: str) -> list[str] | None:
    feature = documents.features.get(column)
    feature = getattr(feature, "feature", feature)  # the items' feature of a column of lists
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _stream_files(files: list[Path], column: str, delimiter: str | None) -> Iterator[dict[str, str]]:
    for piece in read_files(files, column, delimiter, LeftOut()):
        yield {"text": piece.text}


def _parts(split: str) -> list[str]:
    return [SPLIT_ALIASES.get(part.strip().lower(), part.strip().lower()) for part in split.split("+")]


def _split_words(path: Path) -> list[set[str]]:
    """Return the words in a file's name, and in each of its folders' names, innermost first."""
    names = [path.name, *reversed(path.parts[:-1])]
    return [{SPLIT_ALIASES.get(word, word) for word in re.split(r"[^a-z]+", name.lower()) if word} for name in names]


def _text_only(documents: datasets.Dataset, column: str, location: str) -> datasets.Dataset:
    require_columns(location, {column: "text_column"}, documents.column_names)
    kind = getattr(documents.features[column], "dtype", "a nested type")
    if kind not in ("string", "large_string", "string_view"):
        raise DataError(f"{location}: the column {column!r} must be text, got {kind}")
    documents = documents.select_columns([column])
    return documents if column == "text" else documents.rename_column(column, "text")


def _missing_text_warnings(documents: datasets.Dataset, split: str) -> list[str]:
    """Return a warning if texts are empty or missing."""
    lengths = pc.binary_length(documents.with_format("arrow")[:]["text"])
    empty = pc.sum(pc.fill_null(pc.equal(lengths, 0), True)).as_py()
    return [f"{split}: {empty:,} of {len(documents):,} rows left out: no text"] if empty else []
