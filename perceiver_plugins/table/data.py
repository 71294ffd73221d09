"""The data module of numbers in columns, and a small table that comes with scikit-learn."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import asdict, dataclass
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
    """Examples in rows.

    Attributes:
        features: (rows, m) numbers, NaN where one is missing.
        labels: (rows, t) numbers, NaN where one is missing, or (rows) numbers of classes.
    """

    features: np.ndarray
    labels: np.ndarray

    def take(self, rows: np.ndarray) -> Table:
        """The table of these rows alone."""
        return Table(self.features[rows], self.labels[rows])


@dataclass(frozen=True)
class Tables:
    """A data set.

    Attributes:
        feature_names: names of the m columns that a model reads.
        label_names: names of the t targets, or of the classes.
        splits: the examples of "train", "validation" and "test", as far as there are any.
    """

    feature_names: list[str]
    label_names: list[str]
    splits: dict[str, Table]


class Examples(BatchDataset):
    """The examples of a split, and beyond their end one with nothing to predict.

    Args:
        inputs: (rows, m) standardised numbers.
        labels: (rows, t) numbers or (rows) numbers of classes.
    """

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        self.inputs = inputs
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Tensor]:
        inside, labels = take_labels(self.labels, indices)
        return {"inputs": self.inputs[inside], "labels": labels}


class TableDataModule(Classes, PerceiverDataModule):
    """Numbers in columns, from which numbers or a class are to be predicted.

    Batches are dicts of ``inputs`` (b, m), float32, one number a column in standard deviations from the mean of the
    training data, NaN where it is missing; and ``labels``, either (b, t), float64, NaN where one is missing, or (b),
    int64, the number of the class.

    Subclasses implement :meth:`load`.

    Args:
        target: What is to be predicted: numbers or a class.
        batch_size: Examples per batch and device, in training.
    """

    def __init__(
        self,
        target: Literal["number", "class"] = "number",
        batch_size: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if target not in ("number", "class"):
            raise UserError(f"target={target!r} must be 'number' or 'class'")
        self.target = target

    @abstractmethod
    def load(self) -> Tables:
        """Reads the data set."""

    @cached_property
    def tables(self) -> Tables:
        """The data set, which is read when it is first asked for.

        Raises:
            DataError: If there is nothing to train on, or it cannot be read.
        """
        tables = self.load()
        if "train" in tables.splits and not len(tables.splits["train"].labels):
            raise DataError(self.missing_split["train"])
        if self.target == "number" and "train" in tables.splits:
            refuse_constant(tables.label_names, tables.splits["train"].labels)
        return tables

    @cached_property
    def columns(self) -> Columns:
        """What a model reads, and how it is standardised."""
        if "train" not in self.tables.splits:
            return Columns(**self.known["columns"])
        return Columns.of(self.feature_names, self.tables.splits["train"].features)

    @property
    def feature_names(self) -> list[str]:
        """Names of the columns that a model reads."""
        return self.tables.feature_names

    @property
    def num_features(self) -> int:
        """Number m of these."""
        return len(self.feature_names)

    @property
    def target_names(self) -> list[str]:
        """Names of the numbers that are to be predicted."""
        self._require("number")
        return self.tables.label_names

    @property
    def num_targets(self) -> int:
        """Number t of these."""
        return len(self.target_names)

    @property
    def target_mean(self) -> list[float]:
        """Mean of each in the training data."""
        return self._targets.mean

    @property
    def target_std(self) -> list[float]:
        """Standard deviation of each in the training data."""
        return self._targets.std

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, in the order of their numbers."""
        self._require("class")
        return self.tables.label_names

    @property
    def train_labels(self) -> np.ndarray:
        """The classes of the training data, or its numbers (n, t)."""
        return self.tables.splits["train"].labels

    @cached_property
    def _targets(self) -> Columns:
        return Columns.of(self.target_names, self.train_labels)

    def _require(self, target: str) -> None:
        if self.target != target:
            raise UserError(f"target={self.target}: this data's labels are no {target}; its target must be {target!r}")

    def description(self) -> dict[str, Any]:
        """What prediction needs to know about the data, as plain data: it goes into checkpoints."""
        return {"columns": asdict(self.columns)}

    def setup(self, stage: str | None = None) -> None:
        for split, table in self.tables.splits.items():
            self.split_datasets[split] = Examples(
                self.columns.standardise(table.features), torch.from_numpy(table.labels)
            )


class DiabetesDataModule(TableDataModule):
    """Progression of diabetes within a year in 442 patients, from ten measurements of each (Efron et al., "Least angle
    regression", 2004). Comes with scikit-learn; nothing is downloaded.

    310 patients are for training, 66 for validation and 66 for test, always the same.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__("number", **kwargs)

    def load(self) -> Tables:
        from sklearn.datasets import load_diabetes  # takes a second that other data need not wait for

        patients = load_diabetes(scaled=False)
        table = Table(patients.data, patients.target[:, None])
        train, validation, test = np.split(permutation(len(patients.data)), [310, 376])
        splits = {"train": table.take(train), "validation": table.take(validation), "test": table.take(test)}
        return Tables(list(patients.feature_names), ["progression"], splits)
