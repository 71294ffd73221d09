"""Reader of arrays of vectors for ``perceiver predict``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.arrays.decoding import SUFFIXES, as_vectors, decode_array
from perceiver_plugins.arrays.preprocessing import ArrayFormat
from perceiver_plugins.sdk.data.opening import file_format
from perceiver_plugins.sdk.prediction.file_reader import FileReader
from perceiver_plugins.sdk.prediction.reader import InMemory, Reader, not_in_memory
from perceiver_plugins.sdk.prediction.table_inputs import TableRow, kept_columns, table_inputs
from perceiver_registry import UserError

TABLES = (".parquet", ".jsonl", ".json")
"""Formats of tables with lists of vectors."""

FEATURES_COLUMN = "features"
"""Column of vectors, unless the model was trained on another."""


class ArrayReader(FileReader):
    """Reader of files of one array (.npy, or lines of numbers), of rows of tables, and of arrays in memory.

    Args:
        data: the ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if the model was not trained on arrays, or if their description does not fit it.
    """

    suffixes = SUFFIXES
    noun = "arrays"

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        self.array_format = ArrayFormat.from_description(data)
        self.features_column = str(data.get("features_column", FEATURES_COLUMN))
        try:
            input_adapter.check_data(self.array_format)
        except ValueError as error:
            raise UserError(f"checkpoint: array_format: {error}") from error

    @classmethod
    def example(cls, input_adapter: Any, folder: Path) -> tuple[Reader, list[str]]:
        count, num_coordinates = input_adapter.num_features, getattr(input_adapter, "num_coordinates", 0)
        array_format = ArrayFormat(num_coordinates, [0.0] * count, [1.0] * count)
        for number in range(2):
            vectors = np.random.default_rng(number).normal(size=(3 + number, array_format.width))
            np.save(folder / f"{number}.npy", vectors.astype(np.float32))
        return cls(array_format.description(), input_adapter), [str(folder)]

    def _files_in(self, name: str) -> Sequence[str]:
        path = Path(name)
        if file_format(path)[0] not in TABLES:
            return super()._files_in(name)
        columns = {self.features_column: "features_column"} | kept_columns(self.data)
        return list(table_inputs(path, columns, None))

    def source_of(self, value: Any, name: str) -> InMemory:
        """Convert an array (m, numbers), or nested lists, to a source.

        Raises:
            UserError: if it is something else.
        """
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise not_in_memory(name, value, "an array (vectors, numbers)")
        return InMemory(name, value)

    def read(self, source: str) -> dict[str, Tensor]:
        """Read an array and preprocess it as in evaluation.

        Raises:
            UserError: if it cannot be read, or if its vectors have another length than in training.
        """
        if isinstance(source, TableRow):
            location, row = source.values_by_column()
            return self._example(as_vectors(row[self.features_column], location), location)
        if isinstance(source, InMemory):
            return self._example(as_vectors(source.value, source), source)
        return super().read(source)

    def decode(self, content: bytes, name: str) -> dict[str, Tensor]:
        return self._example(decode_array(content, name), name)

    def _example(self, array: np.ndarray, location: str) -> dict[str, Tensor]:
        array_format = self.array_format
        return array_format.example(array_format.sample(array_format.check(array, location), None))

    def collate(self, examples: Sequence[dict[str, Tensor]]) -> Batch:
        return self.array_format.collate(examples)

    def tokens(self, example: dict[str, Tensor]) -> list[str]:
        """Return the index of each vector."""
        return [str(index) for index in range(len(next(iter(example.values()))))]
