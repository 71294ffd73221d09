"""What a person gives to ``perceiver predict`` for a model of tables, and how it is read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.sdk.data.files import Row, find_files, read_rows
from perceiver_plugins.sdk.data.table_rows import check_delimiter
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.sdk.tasks.pictures import drawable
from perceiver_plugins.table.columns import Columns, numbers
from perceiver_registry import UserError
from perceiver_registry.errors import near, shorten


class TableRow(str):
    """A row of a table as one input: what a person sees of it, and its values.

    Args:
        name: the file, and the number of the row.
        row: where the row is, and its values by column; or why it cannot be read.
    """

    row: Row | DataError

    def __new__(cls, name: str, row: Row | DataError) -> TableRow:
        source = super().__new__(cls, name)
        source.row = row
        return source


class TableReader(Reader):
    """Reads rows of tables, or numbers that are written as ``age=59,bmi=32.1``.

    A table stands for as many inputs as it has rows, which are called ``patients.csv:1`` and so on. A column that is
    not written counts as missing; a table must have all of the model's.

    Args:
        data: what the checkpoint says of the data it was trained on, the ``description()`` of its data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if ``data`` does not say which columns the model was trained on.
    """

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        if "columns" not in data:
            raise UserError("the checkpoint names no columns: it was not trained with a TableDataModule")
        self.columns = Columns(**data["columns"])
        self.delimiter = check_delimiter(data.get("delimiter"))

    @classmethod
    def example(cls, input_adapter: Any, folder: Path) -> tuple[Reader, list[str]]:
        count = input_adapter.num_features
        columns = {"names": [f"x{number}" for number in range(count)], "mean": [0.0] * count, "std": [1.0] * count}
        return cls({"columns": columns}, input_adapter), ["x0=1.5", "x0=-2"]

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """The rows of the files among ``inputs``, and what is written as it is.

        Raises:
            DataError: if an input is neither a file nor written as numbers.
        """
        return list(self.sources(inputs))

    def sources(self, inputs: Iterable[str]) -> Iterator[str]:
        if isinstance(inputs, Sequence):
            for given in inputs:
                if not is_written(given):
                    find_files(given, "input")  # all of them are there before the first is predicted
        return (source for given in inputs for source in self._sources(given))

    def _sources(self, given: str) -> Iterator[str]:
        """Written rows as they are, or the rows of tables one after the other."""
        if is_written(given):
            yield given
            return
        columns = dict.fromkeys(self.columns.names, "the model's columns")
        for path in find_files(given, "input"):
            number = 0
            try:
                for number, row in enumerate(read_rows(path, columns, self.delimiter), start=1):
                    yield TableRow(f"{path}:{number}", row)
                if number == 0:
                    raise DataError(f"{path}: the file holds no row")
            except DataError as error:  # the other files, and the rows before, can be read all the same
                yield TableRow(str(path), error)

    def read(self, source: str) -> np.ndarray:
        """The numbers (m) of a row, NaN where one is missing."""
        found = source.row if isinstance(source, TableRow) else (repr(shorten(source)), self._parse(source))
        if isinstance(found, DataError):
            raise found
        where, row = found
        return np.array(numbers(row, self.columns.names, where, "the model"))

    def _parse(self, written: str) -> dict[str, str]:
        row = {}
        for pair in written.split(","):
            name, _, value = pair.partition("=")
            name = name.strip()
            if name not in self.columns.names:
                raise DataError(f"{shorten(written)!r}: no column {shorten(name)!r}; {near(name, self.columns.names)}")
            row[name] = value
        return row

    def collate(self, examples: Sequence[np.ndarray]) -> Batch:
        return {"inputs": torch.stack([self.columns.standardise(example) for example in examples])}

    def tokens(self, example: np.ndarray) -> list[str]:
        """The names of the columns."""
        return self.columns.names

    def draw_attention(self, source: str, example: np.ndarray, weights: Sequence[Tensor], path: Path) -> Path:
        """Draws a bar for each column, in a panel for each of the encoder's cross-attentions: a PNG."""
        from matplotlib.figure import Figure  # not needed where nothing is drawn

        names = self.columns.names
        figure = Figure(figsize=(1 + 4 * len(weights), 1 + 0.25 * len(names)), layout="constrained")
        figure.suptitle(drawable(source) if isinstance(source, TableRow) else "", parse_math=False)
        panels = figure.subplots(1, len(weights), squeeze=False, sharex=True, sharey=True)[0]
        for number, (axes, layer) in enumerate(zip(panels, weights, strict=True), start=1):
            axes.barh(range(len(names)), 100 * layer.float().numpy())
            axes.set_xlabel(f"attention of layer {number}, %" if len(weights) > 1 else "attention, %")
        labels = [f"{drawable(name)} = {value:.4g}" for name, value in zip(names, example, strict=True)]
        panels[0].set_yticks(range(len(names)), labels, parse_math=False)
        panels[0].invert_yaxis()  # the first column on top
        file = path.with_name(f"{path.name}.png")
        figure.savefig(file)
        return file


def is_written(given: str) -> bool:
    """Whether an input is written as numbers, and names no file."""
    return "=" in given and not os.path.exists(given)
