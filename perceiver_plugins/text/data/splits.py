"""The splits of a data set: on the hub, or in a local folder in its place."""

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

SAME = {"val": "validation", "valid": "validation", "dev": "validation", "eval": "validation", "training": "train"}
"""Other names of splits, in files' names."""


class Splits(ABC):
    """Where the splits of a data set come from.

    Attributes:
        notes: lines to report of the documents that :meth:`load` returned.
    """

    def __init__(self, text_column: str) -> None:
        self.text_column = text_column
        self.notes: list[str] = []

    @abstractmethod
    def has(self, split: str) -> bool:
        """Whether there is such a split."""

    @abstractmethod
    def load(self, split: str, work: Path) -> datasets.Dataset:
        """The documents of a split, in the column ``text``."""

    @abstractmethod
    def stream(self, split: str) -> tuple[datasets.IterableDataset, str]:
        """The documents of a split as they come, and the name of their column."""

    @abstractmethod
    def rows(self, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
        """The rows of a split, as :func:`~perceiver_plugins.sdk.data.files.read_rows` yields them.

        Args:
            split: The split.
            columns: The columns that rows must have, each with the flag that names it.
        """

    def label_names(self, split: str, column: str) -> list[str] | None:
        """The names of the classes that the numbers in a column stand for, if the data set has names for them."""
        return None

    @abstractmethod
    def key(self) -> dict[str, Any]:
        """What determines the documents."""


def open_splits(
    dataset: str, subset: str | None, revision: str | None, text_column: str, delimiter: str | None = None
) -> Splits:
    """The splits of a data set.

    Args:
        dataset: Hub id or local folder.
        subset: Name of a part of it; for a local folder: of a folder in it, if there is one of that name.
        revision: Version on the hub.
        text_column: Name of the column with the text.
        delimiter: Character between the columns of .csv and .tsv files in a local folder.

    Raises:
        DataError: If a folder is meant, and missing.
    """
    folder = Path(dataset).expanduser()
    if not folder.is_dir():
        if folder.exists() or dataset.startswith((".", "/", "~")):
            raise DataError(f"dataset={dataset}: not a folder; name a hub id, or a folder with the data set's files")
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
        # a download is worth a progress bar
        documents = _text_only(self._load(split, streaming=False), self.text_column, self.name)
        self.notes += _without_text(documents, split)
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
        # no network, no such data set, subset, revision or split: in all cases it is the flags' fault
        except Exception as error:
            surface_own_fault(error)
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> DataError:
        what = f"{self.name!r}" + (f", subset {self.subset!r}" if self.subset else "")
        return DataError(
            f"data set {what} could not be loaded from the Hugging Face hub ({one_line(error)}); "
            "a local folder with its files can be named in place of the id"
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
            raise DataError(f"{folder}: the saved data set cannot be read ({one_line(error)})") from error
        self.splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}

    def key(self) -> dict[str, Any]:
        return {"files": file_states(sorted(self.folder.rglob("*.arrow"))), "column": self.text_column}

    def has(self, split: str) -> bool:
        return any(part in self.splits for part in _parts(split))

    def load(self, split: str, work: Path) -> datasets.Dataset:
        parts = [_text_only(part, self.text_column, str(self.folder)) for part in self._require(split)]
        self.notes += [note for part in parts for note in _without_text(part, split)]
        return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)

    def rows(self, split: str, columns: Mapping[str, str]) -> Iterator[Row]:
        where = f"{self.folder}, split {split!r}"
        return itertools.chain.from_iterable(_rows_of(part, columns, where) for part in self._require(split))

    def label_names(self, split: str, column: str) -> list[str] | None:
        return _label_names(self._require(split)[0], column)

    def _require(self, split: str) -> list[datasets.Dataset]:
        found = [self.splits[part] for part in _parts(split) if part in self.splits]
        if not found:
            raise DataError(f"{self.folder}: no split {split!r}; there is: {', '.join(self.splits)}")
        return found

    def stream(self, split: str) -> tuple[datasets.IterableDataset, str]:
        documents = self.load(split, self.folder)
        return documents.to_iterable_dataset(num_shards=max(1, min(64, len(documents)))), "text"


class FileSplits(Splits):
    """A folder of files that are named by their split, or lie in folders that are:
    ``train-00000-of-00041.parquet``, ``test/1.jsonl.gz``, ``wiki.valid.txt``. If none is, all belong to the
    split ``train``.
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
        """The files of a split, or of several joined by ``+``."""
        parts = set(_parts(split))
        if not self.named:
            return self.files if "train" in parts else []
        # the file's own name counts before its folders' (train/test_scores.txt is no training data)
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
        # what else lies there (README.txt, SOURCE.txt) has no labels
        if not (files := [file for file in self._require(split) if is_table(file)]):
            raise DataError(f"{self.folder}: labels are read from {', '.join(TABLES)} files, and there are none")
        return rows_of_files(files, columns, self.delimiter)

    def stream(self, split: str) -> tuple[datasets.IterableDataset, str]:
        # a piece of a text file counts as a document here; files are the shards
        with quiet_datasets():
            arguments = {"files": self._require(split), "column": self.text_column, "delimiter": self.delimiter}
            features = datasets.Features({"text": datasets.Value("large_string")})
            stream = datasets.IterableDataset.from_generator(_stream_files, gen_kwargs=arguments, features=features)
        return stream, "text"

    def _require(self, split: str) -> list[Path]:
        if not (files := self.find(split)):
            raise DataError(f"{self.folder}: no file of the split {split!r}, by name: {self.files[0].name} is none")
        return files


def file_states(files: list[Path]) -> list[list[Any]]:
    """The path, size and checksum of files: other content means other data, whatever the time of change."""
    return [[str(file.absolute()), file.stat().st_size, file_checksum(file)] for file in files]


def read_files(files: Iterable[Path], text_column: str, delimiter: str | None, left_out: LeftOut) -> Iterator[Piece]:
    """The documents of several files, one after the other; see :func:`read_documents`."""
    return itertools.chain.from_iterable(read_documents(file, text_column, delimiter, left_out) for file in files)


def rows_of_files(files: Iterable[Path], columns: Mapping[str, str], delimiter: str | None = None) -> Iterator[Row]:
    """The rows of several tables, one after the other.

    Raises:
        DataError: If one of them has none, besides what :func:`~perceiver_plugins.sdk.data.files.read_rows` raises.
    """
    for file in files:
        empty = True
        for row in read_rows(file, columns, delimiter):
            empty = False
            yield row
        if empty:
            raise DataError(f"{file}: the file holds no rows")


def _rows_of(documents: datasets.Dataset, columns: Mapping[str, str], where: str) -> Iterator[Row]:
    require_columns(where, columns, documents.column_names)
    tables = documents.select_columns(list(columns)).with_format("arrow").iter(batch_size=1000)
    rows = (row for table in tables for row in table.to_pylist())
    yield from ((f"{where}, row {number}", row) for number, row in enumerate(rows, 1))


def _label_names(documents: datasets.Dataset, column: str) -> list[str] | None:
    feature = documents.features.get(column)
    feature = getattr(feature, "feature", feature)  # of a list, that of its items
    return list(feature.names) if isinstance(feature, datasets.ClassLabel) else None


def _stream_files(files: list[Path], column: str, delimiter: str | None) -> Iterator[dict[str, str]]:
    for piece in read_files(files, column, delimiter, LeftOut()):
        yield {"text": piece.text}


def _parts(split: str) -> list[str]:
    return [SAME.get(part.strip().lower(), part.strip().lower()) for part in split.split("+")]


def _split_words(path: Path) -> list[set[str]]:
    """The words in a file's name, then those in its folders' names from the nearest on."""
    names = [path.name, *reversed(path.parts[:-1])]
    return [{SAME.get(word, word) for word in re.split(r"[^a-z]+", name.lower()) if word} for name in names]


def _text_only(documents: datasets.Dataset, column: str, where: str) -> datasets.Dataset:
    require_columns(where, {column: "text_column"}, documents.column_names)
    kind = getattr(documents.features[column], "dtype", "a nested type")
    if kind not in ("string", "large_string", "string_view"):
        raise DataError(f"{where}: the column {column!r} is not text but {kind}")
    documents = documents.select_columns([column])
    return documents if column == "text" else documents.rename_column(column, "text")


def _without_text(documents: datasets.Dataset, split: str) -> list[str]:
    """A line for the documents that are empty or missing, which become no tokens; empty without any."""
    lengths = pc.binary_length(documents.with_format("arrow")[:]["text"])
    empty = pc.sum(pc.fill_null(pc.equal(lengths, 0), True)).as_py()
    return [f"{split}: {empty:,} of {len(documents):,} rows left out: no text"] if empty else []
