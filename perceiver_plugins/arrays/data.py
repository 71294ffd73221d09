"""Base data module of arrays of vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch

from perceiver_plugins.arrays.preprocessing import ArrayFormat
from perceiver_plugins.sdk.data.datasets import ExampleDataset
from perceiver_plugins.sdk.data.module import Classes, PerceiverDataModule, check_positive
from perceiver_plugins.sdk.data.splits import stratified_split
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry import UserError


@dataclass(frozen=True)
class Arrays:
    """Arrays and labels of one split.

    Attributes:
        arrays: arrays (m, coordinates + features), float32; m may differ.
        labels: class indices (examples,), int64.
    """

    arrays: Sequence[np.ndarray]
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> Arrays:
        """Select examples by index."""
        return Arrays([self.arrays[index] for index in indices], self.labels[indices])


@dataclass(frozen=True)
class ArraySplits:
    """Data set with its splits.

    Attributes:
        label_names: names of the classes, by index.
        splits: examples by split: "train", "validation" and "test", of which some may be absent.
    """

    label_names: list[str]
    splits: Mapping[str, Arrays]


class ArrayDataset(ExampleDataset):
    """Examples of one split.

    Args:
        arrays: arrays and labels.
        array_format: preprocessing of the arrays.
        seed: seed of the run.
        augment: random augmentation of an array in training; None: none.
    """

    def __init__(
        self,
        arrays: Arrays,
        array_format: ArrayFormat,
        seed: int,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    ) -> None:
        super().__init__(seed)
        self.arrays = arrays
        self.array_format = array_format
        self.augment = augment

    def __len__(self) -> int:
        return len(self.arrays.labels)

    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        array = self.array_format.sample(self.arrays.arrays[index], rng)
        if rng is not None and self.augment is not None:
            array = self.augment(array, rng)
        return {**self.array_format.example(array), "labels": torch.tensor(self.arrays.labels[index])}


class ArrayDataModule(Classes, PerceiverDataModule):
    """Base class of data modules of arrays with a class.

    Batches are dicts of

    - ``coordinates`` (b, m, coordinates), float32, if vectors begin with coordinates;
    - ``features`` (b, m, features), float32, if there are any: standardised by the training data;
    - ``attention_mask`` (b, m), int64: 0 at padding;
    - ``labels`` (b,), int64: class indices.

    Subclasses implement :meth:`load`.

    Args:
        max_vectors: Vectors of an input. Larger arrays are sampled: randomly in training, evenly in evaluation. null:
            no limit.
        batch_size: Examples per batch and device, in training.
    """

    num_coordinates: int = 0
    """Coordinates at the start of a vector."""

    unit_sphere: ClassVar[bool] = False
    """Centre and scale the coordinates of each example."""

    def __init__(self, max_vectors: int | None = None, batch_size: int = 32, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        check_positive(max_vectors=max_vectors)
        self.max_vectors = max_vectors

    @abstractmethod
    def load(self) -> ArraySplits:
        """Read the data set."""

    def augment(self, array: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augment an array (m, coordinates + features) in training. By default it is not changed."""
        return array

    @cached_property
    def data(self) -> ArraySplits:
        """The data set, read at first use."""
        return self.load()

    @cached_property
    def array_format(self) -> ArrayFormat:
        """Preprocessing of the trained model or, for a new one, with the statistics of the training data.

        Raises:
            UserError: If ``max_vectors`` is not that of the trained model.
        """
        described = self.known or self.inherited
        if "array_format" in described:
            trained = ArrayFormat.from_description(described)
            if trained.max_vectors != self.max_vectors:
                given, limit = ("null" if each is None else each for each in (self.max_vectors, trained.max_vectors))
                raise UserError(f"max_vectors={given}: the model was trained with {limit} (leave it out)")
            return trained
        arrays = self.data.splits["train"].arrays
        options = {"max_vectors": self.max_vectors, "unit_sphere": self.unit_sphere}
        return ArrayFormat.fit(arrays, self.num_coordinates, **options)

    @property
    def num_features(self) -> int:
        """Features of a vector, besides coordinates."""
        return self.array_format.num_features

    @property
    def max_positions(self) -> int:
        """Vectors of the longest input of the training data."""
        splits = self.data.splits
        longest = max(map(len, splits["train" if "train" in splits else "test"].arrays))
        return min(longest, self.array_format.max_vectors or longest)

    @property
    def label_names(self) -> list[str]:
        """Names of the classes, by class index."""
        return self.data.label_names

    @property
    def train_labels(self) -> np.ndarray:
        """Class index of each training example, (examples,) int64."""
        return self.data.splits["train"].labels

    @property
    def num_train_examples(self) -> int | None:
        """Number of training examples."""
        return len(self.train_labels) if "train" in self.data.splits else None

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any]:
        return self.array_format.collate

    def description(self) -> dict[str, Any]:
        """Describe the data for prediction, as plain data that is stored in checkpoints."""
        return self.array_format.description()

    def setup(self, stage: str | None = None) -> None:
        for split, arrays in self.data.splits.items():
            if arrays.arrays:
                self.array_format.check(arrays.arrays[0], split)
            self.split_datasets[split] = ArrayDataset(arrays, self.array_format, self.seed, self.augment)


def hold_out(arrays: Arrays, val_fraction: float) -> dict[str, Arrays]:
    """Split training data into "train" and "validation", stratified by class and the same for every seed."""
    train, validation = stratified_split(arrays.labels, val_fraction)
    return {"train": arrays.take(train), "validation": arrays.take(validation)}


def require_equal_widths(arrays: Sequence[np.ndarray], locations: Sequence[str]) -> None:
    """Check that all arrays (m, numbers) have vectors of the same length.

    Args:
        arrays: the arrays.
        locations: location of each array, for messages.

    Raises:
        DataError: if the vectors of an array are not as long as those of the first.
    """
    for array, location in zip(arrays, locations, strict=True):
        if array.shape[1] != arrays[0].shape[1]:
            raise DataError(
                f"{location}: {array.shape[1]} numbers in a vector, {locations[0]} has {arrays[0].shape[1]}"
            )
