"""Preprocessing of arrays of vectors, the same in training and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.collating import PadCollator
from perceiver_plugins.sdk.data.descriptions import is_number_list, restore_dataclass
from perceiver_plugins.sdk.data.statistics import mean_and_std
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry import UserError

MAX_STATISTICS_VECTORS = 1_000_000
"""Vectors of the training data, evenly spaced, from which means and standard deviations are computed. Arbitrary."""


@dataclass(frozen=True)
class ArrayFormat:
    """Format of the arrays (m, coordinates + features) of a model: each of the m vectors has coordinates and features.

    Attributes:
        num_coordinates: number of coordinates at the start of a vector; 0: feature vectors in their order.
        mean: mean of each feature in the training data.
        std: standard deviation of each feature in the training data.
        max_vectors: vectors of an input; a larger array is sampled, randomly in training and evenly in evaluation.
            None: no limit.
        unit_sphere: move the centre of the coordinates to 0, and scale the largest distance from it to 1.
    """

    num_coordinates: int
    mean: list[float]
    std: list[float]
    max_vectors: int | None = None
    unit_sphere: bool = False

    def __post_init__(self) -> None:
        """Validate values that may come from a checkpoint.

        Raises:
            ValueError: if one is invalid.
        """
        for name, value, lowest in (
            ("num_coordinates", self.num_coordinates, 0),
            ("max_vectors", 1 if self.max_vectors is None else self.max_vectors, 1),
        ):
            if type(value) is not int or value < lowest:
                raise ValueError(f"array_format: {name}: must be a whole number of at least {lowest}")
        if type(self.unit_sphere) is not bool:
            raise ValueError("array_format: unit_sphere: must be true or false")
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not is_number_list(numbers) or len(numbers) != len(self.mean):
                raise ValueError(f"array_format: {name}: must be a list of {len(self.mean)} numbers, one per feature")
        if min(self.std, default=1.0) <= 0:
            raise ValueError("array_format: std: must be greater than 0")

    @classmethod
    def from_description(cls, data: Mapping[str, Any]) -> Self:
        """Create the format from the ``description()`` of a data module.

        Raises:
            UserError: if the model was not trained on arrays, or if the description is invalid.
        """
        described = data.get("array_format")
        if described is None:
            raise UserError("checkpoint: its data has no array_format (the model was not trained on arrays)")
        return restore_dataclass(cls, described, "array_format")

    @classmethod
    def fit(cls, arrays: Sequence[np.ndarray], num_coordinates: int, **options: Any) -> Self:
        """Compute the statistics of the features of ``arrays``, each (m, coordinates + features).

        Args:
            arrays: the training data.
            num_coordinates: number of coordinates at the start of a vector.
            options: ``max_vectors`` and ``unit_sphere``.

        Raises:
            UserError: if vectors have fewer numbers than coordinates.
        """
        if (width := arrays[0].shape[1]) < num_coordinates:
            raise UserError(f"num_coordinates={num_coordinates}: the data has {width} numbers in a vector")
        step = -(-sum(map(len, arrays)) // MAX_STATISTICS_VECTORS) or 1
        vectors = np.concatenate([array[:, num_coordinates:] for array in arrays])[::step]
        mean, std = mean_and_std(vectors)
        return cls(num_coordinates, mean.tolist(), std.tolist(), **options)

    def description(self) -> dict[str, Any]:
        """Describe the format, as plain data that is stored in checkpoints."""
        return {"array_format": asdict(self)}

    @property
    def num_features(self) -> int:
        """Number of features of a vector, after its coordinates."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """Length of a vector: number of coordinates and features."""
        return self.num_coordinates + self.num_features

    def check(self, array: np.ndarray, location: str) -> np.ndarray:
        """Check an array (m, numbers), and return it unchanged.

        Raises:
            DataError: if its vectors have another length.
        """
        if array.shape[1] != self.width:
            raise DataError(f"{location}: {array.shape[1]} numbers in a vector, must be {self.width} as in training")
        return array

    def sample(self, array: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
        """Sample the vectors of an array, in their order, if there are more than ``max_vectors``.

        Args:
            array: (m, coordinates + features).
            rng: random generator; None: evenly spaced.
        """
        limit = self.max_vectors
        if limit is None or len(array) <= limit:
            return array
        if rng is None:
            return array[np.arange(limit) * len(array) // limit]
        return array[np.sort(rng.choice(len(array), limit, replace=False))]

    def example(self, array: np.ndarray) -> dict[str, Tensor]:
        """Convert an array (m, coordinates + features) to the entries of a batch, without the batch dimension.

        Returns:
            ``coordinates`` (m, coordinates) and ``features`` (m, features), float32, without empty entries.
        """
        coordinates, features = np.split(array.astype(np.float64), [self.num_coordinates], axis=1)
        if self.unit_sphere:
            coordinates = coordinates - coordinates.mean(axis=0)
            coordinates = coordinates / (np.sqrt((coordinates**2).sum(axis=1)).max() or 1.0)
        entries = {"coordinates": coordinates, "features": (features - self.mean) / self.std}
        return {name: torch.from_numpy(value.astype(np.float32)) for name, value in entries.items() if value.shape[1]}

    @property
    def collate(self) -> PadCollator:
        """Collate function of examples with different numbers of vectors."""
        if not self.num_coordinates:
            return PadCollator({"features": "attention_mask"})
        return PadCollator({"coordinates": "attention_mask"}, {"features": 0.0} if self.num_features else {})
