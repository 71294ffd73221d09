"""Map-style datasets with the keys of the samplers: (epoch, index) in training, index in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from perceiver_plugins.sdk.data.loading import IGNORED, Key, example_rng


class ExampleDataset(Dataset[dict[str, Any]], ABC):
    """Base class of map-style datasets that make one example at a time.

    Keys are ``(epoch, index)`` in training and ``index`` in evaluation. An index beyond the end, which pads the last
    batch of a process, returns the last example with ignored labels (:func:`ignored`).

    Args:
        seed: Seed of the run, for the random generators of augmentation.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Make an example: a dict of tensors and numbers with the keys of the batch, including ``labels``.

        Args:
            index: Index of the example, less than the length.
            rng: Random generator for augmentation, a function of seed, epoch and index; None in evaluation.
        """

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """Return the example of a key (epoch, index), or of an index in evaluation."""
        epoch, index = key if isinstance(key, tuple) else (None, key)
        inside = min(index, len(self) - 1)
        rng = None if epoch is None else example_rng(self.seed, epoch, index)
        example = self.example(inside, rng)
        return example if index == inside else example | {"labels": ignored(example["labels"])}


def ignored(labels: Any) -> Tensor:
    """Return ignored labels of the same shape and type: NaN for floating point numbers, otherwise ``IGNORED``."""
    labels = torch.as_tensor(labels)
    return torch.full_like(labels, torch.nan if labels.is_floating_point() else IGNORED)


def take_labels(labels: Tensor, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Take the labels of a batch, for a :class:`~perceiver_plugins.sdk.data.loading.BatchDataset`.

    Args:
        labels: (n, ...), labels of all examples.
        indices: (b,) int64. Indices beyond the end are allowed.

    Returns:
        (b,) the indices, limited to the last one, and (b, ...) the labels, ignored beyond the end.
    """
    wanted = torch.from_numpy(indices)
    inside = wanted.clamp(max=len(labels) - 1)
    taken, beyond = labels[inside], wanted != inside
    taken[beyond] = ignored(taken[beyond])
    return inside, taken
