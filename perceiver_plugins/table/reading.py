"""Reader of table rows for ``perceiver predict``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from perceiver_core import Batch, InputAdapter
from perceiver_plugins.sdk.data.column_reader import Cell
from perceiver_plugins.sdk.data.files import find_files
from perceiver_plugins.sdk.data.table_rows import check_delimiter
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.sdk.prediction.reader import Reader
from perceiver_plugins.sdk.prediction.table_inputs import TableRow, kept_columns, row_in_memory, table_inputs
from perceiver_plugins.sdk.tasks.pictures import drawable
from perceiver_plugins.table.adapters import FIRST_CATEGORY, UNSEEN_CATEGORY, TableInputAdapter
from perceiver_plugins.table.columns import Columns
from perceiver_plugins.table.embedded import object_array, report_cells
from perceiver_registry import UserError
from perceiver_registry.errors import near, shorten


class TableReader(Reader):
    """Reader of table files, one input per row, and of rows given as ``age=59,bmi=32.1``.

    Rows of files are named ``patients.csv:1`` and so on. A table file must have all of the model's columns; in a row
    given as text, absent columns are missing values. Relative paths of images are relative to the folder of the file,
    or to the current folder for other rows, unless the model was trained with ``image_folder``.

    Args:
        data: description of the training data from the checkpoint: ``description()`` of the data module.
        input_adapter: the model's input adapter.

    Raises:
        UserError: if ``data`` does not describe the model's columns.
    """

    def __init__(self, data: Mapping[str, Any], input_adapter: InputAdapter) -> None:
        super().__init__(data, input_adapter)
        if "columns" not in data:
            raise UserError("checkpoint: its data has no columns (the model was not trained on tables)")
        self.columns = Columns.from_description(data["columns"])
        try:
            input_adapter.check_data(self.columns)
        except ValueError as error:
            raise UserError(f"checkpoint: columns: {error}") from error
        self.rows = self.columns.row_reader()
        self.delimiter = check_delimiter(data.get("delimiter"))

    @classmethod
    def example(cls, input_adapter: Any, folder: Path) -> tuple[Reader, list[str]]:
        if not isinstance(input_adapter, TableInputAdapter):
            raise NotImplementedError("columns of texts and images")
        count = input_adapter.num_features
        columns: dict[str, Any] = {
            "names": [f"x{number}" for number in range(count)],
            "mean": [0.0] * count,
            "std": [1.0] * count,
        }
        categories = {
            f"c{number}": [f"category {index}" for index in range(size)]
            for number, size in enumerate(input_adapter.num_categories)
        }
        if categories:
            columns["names"] += categories
            columns |= {"kinds": dict.fromkeys(categories, "category"), "categories": categories}
        rows = [*(["x0=1.5", "x0=-2"] if count else []), *(f"{name}=category 0" for name in categories)]
        return cls({"columns": columns}, input_adapter), rows

    def expand(self, inputs: Sequence[str]) -> list[str]:
        """Expand files to their rows; keep rows given as text.

        Raises:
            DataError: if an input is neither a file nor a row given as text.
        """
        return list(self.sources(inputs))

    def sources(self, inputs: Iterable[str]) -> Iterator[str]:
        if isinstance(inputs, Sequence):
            for name in inputs:
                if not is_row_text(name):
                    find_files(name, "input")  # report a missing file before the first prediction
        return (source for name in inputs for source in self._sources(name))

    def _sources(self, name: str) -> Iterator[str]:
        if is_row_text(name):
            yield name
            return
        for path in find_files(name, "input"):
            yield from table_inputs(path, self._required_columns() | kept_columns(self.data), self.delimiter)

    def _required_columns(self) -> dict[str, str]:
        return dict.fromkeys(self.columns.names, "the model's columns")

    def source_of(self, value: Any, name: str) -> TableRow:
        """Convert a row in memory, a dict with all columns of the model, to a source."""
        return row_in_memory(value, name, self._required_columns())

    def read(self, source: str) -> np.ndarray:
        """Return the values of a row.

        Returns:
            Numeric features (m), NaN where missing, and ids of categories (k). With columns of texts or images, these
            are followed by their examples, None where missing, in an array of objects.
        """
        if isinstance(source, TableRow):
            (location, values), folder = source.values_by_column(), source.folder
        else:
            location, values, folder = repr(shorten(source)), self._parse(source), Path()
        numbers = self.rows.read(values, location, "the model chooses the columns to read")
        readers = self.columns.column_readers
        if not readers:
            return np.array(numbers)
        cells = (reader.read(Cell(values.get(name), name, location, folder)) for name, reader in readers.items())
        return object_array([*numbers, *cells])

    def finish(self) -> None:
        """Report unseen categories and cut texts, in one line per column."""
        for line in (*self.rows.report(), *report_cells(self.columns.column_readers)):
            rank_zero_warn(line)

    def _parse(self, text: str) -> dict[str, str]:
        row = {}
        for pair in text.split(","):
            name, equals, value = pair.partition("=")
            name = name.strip()
            if name not in self.columns.names:
                raise DataError(f"{shorten(text)!r}: no column {shorten(name)!r}; {near(name, self.columns.names)}")
            if not equals or name in row:
                problem = "occurs more than once" if equals else "has no value"
                raise DataError(f"{shorten(text)!r}: {name!r} {problem} (a row is given as name=value,name=value)")
            row[name] = value
        return row

    def collate(self, examples: Sequence[np.ndarray]) -> Batch:
        rows, width = np.stack(examples), self.rows.width
        cells = dict(zip(self.rows.embedded, rows[:, width:].T, strict=True))
        return {**self.columns.batch(rows[:, :width].astype(np.float64)), **self.columns.batch_cells(cells)}

    def tokens(self, example: np.ndarray) -> list[str]:
        """Return the names of the columns, or of features of dates, one per input position."""
        return self.columns.positions

    def draw_attention(self, source: str, example: np.ndarray, weights: Sequence[Tensor], path: Path) -> Path:
        """Write a PNG with one bar per column, in one panel per cross-attention layer of the encoder.

        Raises:
            UserError: if the table has columns of texts or images, which have many positions each.
        """
        if self.rows.embedded:
            raise UserError("--attention: not available for tables with columns of texts or images (leave it out)")
        from matplotlib.figure import Figure  # deferred: only needed to draw

        names = self.columns.positions
        figure = Figure(figsize=(1 + 4 * len(weights), 1 + 0.25 * len(names)), layout="constrained")
        figure.suptitle(drawable(source) if isinstance(source, TableRow) else "", parse_math=False)
        panels = figure.subplots(1, len(weights), squeeze=False, sharex=True, sharey=True)[0]
        for number, (axes, layer) in enumerate(zip(panels, weights, strict=True), start=1):
            axes.barh(range(len(names)), 100 * layer.float().numpy())
            axes.set_xlabel(f"attention of layer {number}, %" if len(weights) > 1 else "attention, %")
        shown = zip(names, self._shown(example), strict=True)
        labels = [f"{drawable(name)} = {drawable(value)}" for name, value in shown]
        panels[0].set_yticks(range(len(names)), labels, parse_math=False)
        panels[0].invert_yaxis()  # first column at the top
        file = path.with_name(f"{path.name}.png")
        figure.savefig(file)
        return file

    def _shown(self, example: np.ndarray) -> list[str]:
        """Format the values of a row for an attention map."""
        numbers, ids = np.split(example, [len(self.columns.features)])
        shown = [f"{value:.4g}" for value in numbers]
        for index, name in zip(ids.astype(int).tolist(), self.columns.category_names, strict=True):
            categories = self.columns.categories[name]
            special = "unseen" if index == UNSEEN_CATEGORY else "missing"
            shown.append(categories[index - FIRST_CATEGORY] if index >= FIRST_CATEGORY else special)
        return shown


def is_row_text(name: str) -> bool:
    """Tell a row given as text (``age=59``) from the name of a file."""
    return "=" in name and not os.path.exists(name)
