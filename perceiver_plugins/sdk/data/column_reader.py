"""Base class of readers of table columns with an input adapter of their own, such as texts and images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from perceiver_registry.errors import UserError

MISSING_ENTRY = "missing"
"""Batch entry of a column: (b,) bool, True for examples whose cell is missing."""


class Cell(NamedTuple):
    """Cell of a table.

    Attributes:
        value: its value, of a type of its file's format, or an object in memory.
        column: name of its column.
        location: file and line, for messages.
        folder: folder that relative paths in the table are relative to.
    """

    value: Any
    column: str
    location: str
    folder: Path

    @property
    def where(self) -> str:
        """Location and column, for messages."""
        return f"{self.location}: {self.column}"


@dataclass(frozen=True)
class ColumnOptions:
    """Options of new column readers.

    Attributes:
        tokenizer: tokenizer of texts, as for ``text-files``.
        max_seq_len: largest number of tokens of a text; longer texts are cut at the end.
        image_size: height and width of images in pixels.
        image_folder: folder that relative paths of images are relative to. None: that of the table's file.
    """

    tokenizer: str = "train:auto"
    max_seq_len: int = 256
    image_size: int = 32
    image_folder: str | None = None


def refuse_other_value(name: str, given: Any, trained: Any) -> None:
    """Raise UserError if an option has another value than in the trained model."""
    if given != trained:
        raise UserError(f"{name}={given}: the model was trained with {trained} (set {name}={trained})")


class ColumnReader(ABC):
    """Base class of readers of a column: they convert cells to examples, and examples to the batch of an input adapter.

    The spec of the input adapter names its readers by kind of column (``AdapterSpec.column_readers``). All data modules
    and readers of tables use them.
    """

    @classmethod
    @abstractmethod
    def fit(cls, cells: Sequence[Cell], options: ColumnOptions) -> Self:
        """Create the reader of a new model.

        Args:
            cells: cells of the training rows.
            options: options of the data module.

        Raises:
            UserError: if the cells cannot be read, or if an option is wrong.
        """

    @classmethod
    @abstractmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """Create the reader of a trained model from the result of :meth:`description`.

        Raises:
            KeyError, TypeError, ValueError: if it is invalid.
        """

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Describe the reader as plain data, which is stored in checkpoints."""

    def check_options(self, options: ColumnOptions) -> None:  # noqa: B027
        """Check that the options of a data module are those of this reader of a trained model. By default no check.

        Raises:
            UserError: if one differs.
        """

    @abstractmethod
    def encoder_fields(self) -> dict[str, Any]:
        """Return the fields of the input adapter's config, without those of the encoder that all columns share."""

    @abstractmethod
    def read(self, cell: Cell) -> Any:
        """Convert a cell to an example; None if it is missing.

        Raises:
            DataError: if the cell cannot be read; the message begins with ``cell.where``.
        """

    @property
    @abstractmethod
    def blank(self) -> Any:
        """Example that replaces missing ones. It has no effect on the model's output."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """Collate examples (b) to the entries of a batch that the input adapter reads."""

    def batch(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """Collate examples (b), None where missing, to the batch of a column.

        Returns:
            The entries of :meth:`collate`, and ``missing`` (b,), bool.
        """
        present = [self.blank if example is None else example for example in examples]
        missing = torch.tensor([example is None for example in examples], dtype=torch.bool)
        return {**self.collate(present), MISSING_ENTRY: missing}

    def report(self) -> list[str]:
        """Return and clear the notes about cells that were read, such as cut texts. By default an empty list."""
        return []
