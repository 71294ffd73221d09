"""Base data module of tables, and the diabetes data set of scikit-learn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.datasets import take_labels
from perceiver_plugins.sdk.data.loading import BatchDataset
from perceiver_plugins.sdk.data.module import Classes, PerceiverDataModule
from perceiver_plugins.sdk.data.splits import permutation
from perceiver_plugins.sdk.data.statistics import refuse_constant
from perceiver_plugins.sdk.errors import DataError
from perceiver_plugins.table.columns import Columns
from perceiver_registry import UserError


@dataclass(frozen=True)
class Table:
    """Features and labels of one split.

    Attributes:
        features: (rows, m + k) numbers, NaN where missing, then ids of categories
            (:class:`~perceiver_plugins.table.columns.Columns`).
        labels: (rows, t) targets, NaN where missing, or (rows) class indices, or (rows, classes) 0 or 1.
        cells: (rows,) objects by column of texts or images: examples of the column's reader, None where missing. Before
            readers exist, these are :class:`~perceiver_plugins.sdk.data.Cell`.
    """

    features: np.ndarray
    labels: np.ndarray
    cells: Mapping[str, np.ndarray] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> Table:
        """Select rows by index."""
        cells = {name: column[rows] for name, column in self.cells.items()}
        return Table(self.features[rows], self.labels[rows], cells)


@dataclass(frozen=True)
class Tables:
    """A data set with its splits.

    Attributes:
        feature_names: names of the feature columns.
        label_names: names of the t targets, or of the classes.
        splits: examples by split: "train", "validation" and "test", of which some may be absent.
        kinds: kind of each feature column that does not contain numbers: "boolean", "date", "datetime", "category",
            "text" or "image".
        categories: categories of the training data of each categorical column.
        readers: description of the reader of each column of texts or images.
    """

    feature_names: list[str]
    label_names: list[str]
    splits: dict[str, Table]
    kinds: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, list[str]] = field(default_factory=dict)
    readers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Examples(BatchDataset):
    """Examples of one split.

    An index beyond the end, which fills up the last batch, returns an example whose labels are ignored.

    Args:
        inputs: (rows, m) standardised numbers.
        labels: (rows, t) targets or (rows) class indices.
        category_ids: (rows, k) ids of categories. None: no categorical columns.
        cells: (rows,) examples by column of texts or images, None where missing.
        columns: the columns, which collate these examples. None: no such columns.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        category_ids: Tensor | None = None,
        cells: Mapping[str, np.ndarray] | None = None,
        columns: Columns | None = None,
    ) -> None:
        self.inputs = inputs
        self.labels = labels
        self.category_ids = category_ids
        self.cells = cells or {}
        self.columns = columns

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Any]:
        inside, labels = take_labels(self.labels, indices)
        ids = {} if self.category_ids is None else {"category_ids": self.category_ids[inside]}
        nested: dict[str, Any] = {}
        if self.columns is not None and self.cells:
            nested = self.columns.batch_cells({name: cells[inside.numpy()] for name, cells in self.cells.items()})
        return {"inputs": self.inputs[inside], **ids, **nested, "labels": labels}


class TableDataModule(Classes, PerceiverDataModule):
    """Base class of data modules of tables, for regression or classification.

    Batches are dicts of

    - ``inputs`` (b, m), float32: numeric features, scaled by the training data, NaN where missing;
    - ``category_ids`` (b, k), int64, with k categorical columns: 0 where missing, 1 for a category that the training
      data lacks, otherwise 2, 3, ... in the order of the categories;
    - a nested batch for each column of texts or images, with the column's name: the entries of its input adapter, and
      ``missing`` (b,), True where the cell is missing;
    - ``labels``: targets (b, t), float64, NaN where missing, or class indices (b), int64. With any number of
      classes per row, (b, classes), float32: 0, 1, or NaN where unknown.

    Subclasses implement :meth:`load`.

    Args:
        target: Kind of labels: numbers or a class.
        batch_size: Examples per batch and device, in training.
        scaling: Scaling of numbers by the training data: subtract the mean and divide by the standard deviation
            (standard), or first map numbers and dates to a normal distribution by their rank (quantile), for skewed
            columns and outliers.
    """

    def __init__(
        self,
        target: Literal["number", "class"] = "number",
        batch_size: int = 32,
        scaling: Literal["standard", "quantile"] = "standard",
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if target not in ("number", "class"):
            raise UserError(f"target={target!r} must be 'number' or 'class'")
        if scaling not in ("standard", "quantile"):
            raise UserError(f"scaling={scaling!r} must be 'standard' or 'quantile'")
        self.target = target
        self.scaling = scaling

    @abstractmethod
    def load(self) -> Tables:
        """Read the data set."""

    @cached_property
    def tables(self) -> Tables:
        """The data set, read at first use.

        Raises:
            DataError: If the training split is empty, a target is constant in it, or the data cannot be read.
        """
        tables = self.load()
        if "train" in tables.splits and not len(tables.splits["train"].labels):
            raise DataError(self.missing_split["train"])
        if self.target == "number" and "train" in tables.splits:
            refuse_constant(tables.label_names, tables.splits["train"].labels)
        return tables

    @cached_property
    def trained_columns(self) -> Columns | None:
        """Feature columns of the model that is evaluated, resumed or started from.

        Raises:
            UserError: If their description is invalid.
        """
        described = self.known.get("columns") or self.inherited.get("columns")
        return Columns.from_description(described) if described else None

    @cached_property
    def columns(self) -> Columns:
        """Feature columns with the statistics of the trained model or, for a new one, those of the training data.

        Raises:
            UserError: If ``scaling`` is not that of the trained model.
        """
        tables, trained = self.tables, self.trained_columns
        if trained is None or (trained.names != tables.feature_names and "train" in tables.splits):
            return Columns.fit(
                tables.feature_names,
                tables.splits["train"].features,
                tables.kinds,
                tables.categories,
                by_quantiles=self.scaling == "quantile",
                readers=tables.readers,
            )
        scaling = trained.scaling
        if scaling not in (None, self.scaling):
            raise UserError(f"scaling={self.scaling}: the model was trained with {scaling} (leave it out)")
        return trained

    @property
    def feature_names(self) -> list[str]:
        """Names of the feature columns."""
        return self.tables.feature_names

    @property
    def num_features(self) -> int:
        """Number m of numeric features: one for each column of numbers, several for a date."""
        return self.columns.num_features

    @property
    def num_categories(self) -> list[int] | None:
        """Number of categories of each categorical column; None without such a column."""
        return self.columns.num_categories

    @property
    def column_inputs(self) -> dict[str, dict[str, Any]] | None:
        """Input adapters of columns of texts and images, by modality; None without such a column."""
        return self.columns.column_inputs

    @property
    def target_names(self) -> list[str]:
        """target=number: names of the targets."""
        self._require("number")
        return self.tables.label_names

    @property
    def num_targets(self) -> int:
        """target=number: number t of targets."""
        return len(self.target_names)

    @property
    def target_mean(self) -> list[float]:
        """target=number: mean of each target in the training data."""
        return self._targets.mean

    @property
    def target_std(self) -> list[float]:
        """target=number: standard deviation of each target in the training data."""
        return self._targets.std

    @property
    def label_names(self) -> list[str]:
        """target=class: names of the classes, by class index."""
        self._require("class")
        return self.tables.label_names

    @property
    def multi_label(self) -> bool | None:  # type: ignore[override]
        """target=class: rows have any number of classes."""
        return self.target == "class" and any(table.labels.ndim == 2 for table in self.tables.splits.values())

    @property
    def train_labels(self) -> np.ndarray:
        """Labels of the training data: class indices (rows) or targets (rows, t)."""
        return self.tables.splits["train"].labels

    @cached_property
    def _targets(self) -> Columns:
        return Columns.fit(self.target_names, self.train_labels)

    def _require(self, target: str) -> None:
        if self.target != target:
            raise UserError(f"target={self.target}: must be {target!r} for the labels that the task needs")

    @property
    def num_train_examples(self) -> int | None:
        """Number of rows of the training data."""
        return len(self.train_labels) if "train" in self.tables.splits else None

    @property
    def num_validation_examples(self) -> int | None:
        """Number of rows of the validation data."""
        return len(self.tables.splits["validation"].labels) if "validation" in self.tables.splits else None

    def description(self) -> dict[str, Any]:
        """Describe the data for prediction, as plain data that is stored in checkpoints."""
        return {"columns": self.columns.to_dict()}

    def setup(self, stage: str | None = None) -> None:
        for split, table in self.tables.splits.items():
            batch = self.columns.batch(table.features)
            labels = torch.from_numpy(table.labels)
            ids = batch.get("category_ids")
            self.split_datasets[split] = Examples(batch["inputs"], labels, ids, table.cells, self.columns)


class DiabetesDataModule(TableDataModule):
    """Progression of diabetes within a year in 442 patients, from ten measurements of each (Efron et al., "Least angle
    regression", 2004). The data comes with scikit-learn; nothing is downloaded.

    The split is fixed: 310 patients for training, 66 for validation, 66 for test.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("number", **kwargs)

    def load(self) -> Tables:
        from sklearn.datasets import load_diabetes  # deferred: the import takes a second

        patients = load_diabetes(scaled=False)
        table = Table(patients.data, patients.target[:, None])
        train, validation, test = np.split(permutation(len(patients.data)), [310, 376])
        splits = {"train": table.take(train), "validation": table.take(validation), "test": table.take(test)}
        return Tables(list(patients.feature_names), ["progression"], splits)
