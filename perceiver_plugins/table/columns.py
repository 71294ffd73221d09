"""Feature columns of a table: kinds, categories, statistics of their numbers, and readers of texts and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.column_reader import ColumnReader
from perceiver_plugins.sdk.data.descriptions import is_number_list, restore_dataclass
from perceiver_plugins.sdk.data.statistics import mean_and_std
from perceiver_plugins.table.embedded import modality_names, restore_reader
from perceiver_plugins.table.kinds import (
    FEATURES,
    categorical_columns,
    embedded_columns,
    feature_names,
    kind_of_column,
)
from perceiver_plugins.table.rows import RowReader
from perceiver_plugins.table.scaling import fit_quantiles, to_normal
from perceiver_registry.configs import ADAPTER_KEY

SCALED_BY_QUANTILES = ("number", "date", "datetime")
"""Kinds of columns whose first feature gets quantile scaling. Other features are 0 or 1, or from -1 to 1."""


@dataclass(frozen=True)
class Columns:
    """Columns of a table with the statistics that scale their numbers.

    A row is an array of the numeric features of all columns, NaN where missing, followed by an id for each column of
    categories (0 where missing, 1 for a category that the training data lacks, otherwise from 2).

    Attributes:
        names: names of the columns.
        mean: mean of each numeric feature, after quantile scaling.
        std: standard deviation of each numeric feature, after quantile scaling.
        kinds: kind of each column that does not contain numbers (:data:`~perceiver_plugins.table.kinds.FEATURES`).
        categories: categories of the training data of each categorical column.
        quantiles: quantiles by feature, for features that are scaled by them.
        readers: description of the reader of each column of texts or images.
    """

    names: list[str]
    mean: list[float]
    std: list[float]
    kinds: dict[str, str] = field(default_factory=dict)
    categories: dict[str, list[str]] = field(default_factory=dict)
    quantiles: dict[str, list[float]] = field(default_factory=dict)
    readers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Validate values that may come from a checkpoint.

        Raises:
            ValueError: if a value is invalid, such as an unknown kind, or statistics that do not fit the features.
        """
        _require(_are_distinct_texts(self.names) and self.names, "names", "must be a list of different names")
        _require(_are_texts_by_name(self.kinds), "kinds", "must have a name for each column")
        if unknown := set(self.kinds.values()).difference(FEATURES):
            raise ValueError(f"columns: unknown kind {min(unknown)!r} (this version is too old for the model)")
        _require(isinstance(self.categories, Mapping), "categories", "must be lists by column")
        for name in self.category_names:
            _require(name in self.categories, "categories", f"no categories of {name!r}")
            valid = _are_distinct_texts(self.categories[name])
            _require(valid, "categories", f"those of {name!r} must be a list of different texts")
        for field_name, numbers in (("mean", self.mean), ("std", self.std)):
            valid = is_number_list(numbers) and len(numbers) == len(self.features)
            _require(valid, field_name, f"must be a list of {len(self.features)} numbers, one for each feature")
        _require(min(self.std, default=1.0) > 0, "std", "must be greater than 0")
        _require(isinstance(self.quantiles, Mapping), "quantiles", "must be lists by feature")
        for name, numbers in self.quantiles.items():
            valid = is_number_list(numbers) and all(low <= high for low, high in pairwise(numbers))
            _require(valid, "quantiles", f"those of {name!r} must be a list of ascending numbers")
        _require(isinstance(self.readers, Mapping), "readers", "must be descriptions by column")
        for name in embedded_columns(self.names, self.kinds):
            _require(isinstance(self.readers.get(name), Mapping), "readers", f"no description of that of {name!r}")

    @classmethod
    def from_description(cls, described: Any) -> Self:
        """Create the columns of a checkpoint from their description (:meth:`to_dict`).

        Raises:
            UserError: if it is invalid.
        """
        return restore_dataclass(cls, described, "columns")

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        numbers: np.ndarray,
        kinds: Mapping[str, str] | None = None,
        categories: Mapping[str, Sequence[str]] | None = None,
        by_quantiles: bool = False,
        readers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Self:
        """Compute the statistics of ``numbers`` (rows, m), ignoring NaN.

        A constant column gets a standard deviation of 1.

        Args:
            names: names of the columns.
            numbers: rows; their ids of categories are ignored.
            kinds: kinds of the columns that do not contain numbers.
            categories: categories of the categorical columns.
            by_quantiles: apply quantile scaling to numbers and dates before they are standardised.
            readers: description of the reader of each column of texts or images.
        """
        known = dict(kinds or {})
        features = dict(zip(feature_names(names, known), numbers.T, strict=False))
        scaled = [name for name in names if by_quantiles and kind_of_column(name, known) in SCALED_BY_QUANTILES]
        first_features = [feature_names([name], known)[0] for name in scaled]
        quantiles = {name: fit_quantiles(features[name]) for name in first_features}
        for name, values in quantiles.items():
            features[name] = to_normal(features[name], values)
        mean, std = mean_and_std(np.stack(list(features.values()), axis=1) if features else np.empty((len(numbers), 0)))
        found = {name: list(values) for name, values in (categories or {}).items()}
        described = {name: dict(values) for name, values in (readers or {}).items()}
        return cls(list(names), mean.tolist(), std.tolist(), known, found, quantiles, described)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain data, without empty ones, which older versions cannot read."""
        always = ("names", "mean", "std")
        return {name: value for name, value in asdict(self).items() if value or name in always}

    @cached_property
    def features(self) -> list[str]:
        """Names of the numeric features: the name of a numeric column, several for a date."""
        return feature_names(self.names, self.kinds)

    @cached_property
    def category_names(self) -> list[str]:
        """Names of the categorical columns."""
        return categorical_columns(self.names, self.kinds)

    @property
    def num_features(self) -> int:
        """Number of numeric features."""
        return len(self.features)

    @property
    def num_categories(self) -> list[int] | None:
        """Number of categories of each categorical column; None if there is no such column."""
        return [len(self.categories[name]) for name in self.category_names] or None

    @property
    def scaling(self) -> str | None:
        """Scaling of numbers: "standard" or "quantile"; None without a feature that depends on it."""
        if self.quantiles:
            return "quantile"
        scaled = any(kind_of_column(name, self.kinds) in SCALED_BY_QUANTILES for name in self.names)
        return "standard" if scaled else None

    @property
    def positions(self) -> list[str]:
        """Name of each value of a row: the numeric features, then the categorical columns."""
        return [*self.features, *self.category_names]

    def standardise(self, numbers: np.ndarray) -> Tensor:
        """Scale numeric features (..., m) by quantiles, if any, and by mean and standard deviation; float32."""
        numbers = numbers[..., : len(self.features)]
        if self.quantiles:
            scaled = [
                to_normal(numbers[..., index], self.quantiles[name]) if name in self.quantiles else numbers[..., index]
                for index, name in enumerate(self.features)
            ]
            numbers = np.stack(scaled, axis=-1)
        return torch.from_numpy(((numbers - self.mean) / self.std).astype(np.float32))

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """Return the entries of a batch for ``rows`` (b, m + k) of m numeric features and k categorical columns.

        Returns:
            ``inputs`` (b, m), float32 and, with categorical columns, ``category_ids`` (b, k), int64.
        """
        inputs = {"inputs": self.standardise(rows)}
        if not self.category_names:
            return inputs
        return inputs | {"category_ids": torch.from_numpy(rows[..., len(self.features) :].astype(np.int64))}

    @cached_property
    def column_readers(self) -> dict[str, ColumnReader]:
        """Reader of each column of texts or images.

        Raises:
            UserError: if a description is invalid.
            UnknownNameError: if the input adapter of a column is not installed.
        """
        return {
            name: restore_reader(name, self.kinds[name], self.readers[name])
            for name in embedded_columns(self.names, self.kinds)
        }

    @property
    def column_inputs(self) -> dict[str, dict[str, Any]] | None:
        """Input adapter of each column of texts or images, with its fields, by modality; None without such a column."""
        modalities = modality_names(self.column_readers)
        return {
            modalities[name]: {ADAPTER_KEY: self.readers[name][ADAPTER_KEY], **reader.encoder_fields()}
            for name, reader in self.column_readers.items()
        } or None

    def batch_cells(self, cells: Mapping[str, Sequence[Any]]) -> dict[str, dict[str, Tensor]]:
        """Return the entries of a batch for examples (b) by column of texts or images: a nested batch for each."""
        modalities = modality_names(self.column_readers)
        return {modalities[name]: reader.batch(cells[name]) for name, reader in self.column_readers.items()}

    def row_reader(self) -> RowReader:
        """Create a reader of rows with these columns."""
        return RowReader(self.names, self.kinds, self.categories)


def _require(valid: Any, name: str, problem: str) -> None:
    if not valid:
        raise ValueError(f"columns: {name}: {problem}")


def _are_distinct_texts(values: Any) -> bool:
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        return False
    return len(set(values)) == len(values)


def _are_texts_by_name(values: Any) -> bool:
    return isinstance(values, Mapping) and all(isinstance(each, str) for each in values.values())
