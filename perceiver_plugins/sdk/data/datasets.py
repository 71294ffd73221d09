"""Map-style datasets that follow the keys of the samplers: (epoch, index) in training, index in evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from perceiver_plugins.sdk.data.loading import IGNORED, Key, example_rng


class ExampleDataset(Dataset[dict[str, Any]], ABC):
    """Map-style dataset that makes one example at a time.

    Training asks for ``(epoch, index)``, evaluation for ``index``. An index beyond the end, which fills up the last
    batch of a process, returns the last example with labels that do not count (:func:`ignored`).

    Args:
        seed: Seed of the run, which the random generators of augmentation follow from.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def example(self, index: int, rng: np.random.Generator | None) -> dict[str, Any]:
        """Return one example: tensors and numbers by the names of the batch's entries, ``labels`` among them.

        Args:
            index: Index of the example, from 0 to below the length.
            rng: Random generator for augmentation, a function of seed, epoch and index alone; None in evaluation.
        """

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """Return the example with the key (epoch, index), or with an index alone in evaluation."""
        epoch, index = key if isinstance(key, tuple) else (None, key)
        inside = min(index, len(self) - 1)
        rng = None if epoch is None else example_rng(self.seed, epoch, index)
        example = self.example(inside, rng)
        return example if index == inside else example | {"labels": ignored(example["labels"])}


def ignored(labels: Any) -> Tensor:
    """Return labels of the same shape and type that do not count: NaN for real numbers, otherwise ``IGNORED``."""
    labels = torch.as_tensor(labels)
    return torch.full_like(labels, torch.nan if labels.is_floating_point() else IGNORED)


def take_labels(labels: Tensor, indices: np.ndarray) -> tuple[Tensor, Tensor]:
    """Take the labels of a batch, for a :class:`~perceiver_plugins.sdk.data.loading.BatchDataset`.

    Args:
        labels: (n, ...), those of all examples.
        indices: (b,) int64, of which some may lie beyond the end.

    Returns:
        (b,) the indices, those beyond the end replaced by the last one, and (b, ...) the labels, which do not count
        beyond the end.
    """
    wanted = torch.from_numpy(indices)
    inside = wanted.clamp(max=len(labels) - 1)
    taken, beyond = labels[inside], wanted != inside
    taken[beyond] = ignored(taken[beyond])
    return inside, taken
