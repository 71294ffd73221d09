"""Names of classes that follow from the labels of the data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from perceiver_plugins.sdk.data.class_names import in_order
from perceiver_plugins.sdk.data.module import Classes


class NamedLabels(Classes):
    """Classes of a data module by the names that occur in its data: mix it in before the data module.

    Subclasses implement :attr:`labels`; ``label_names``, ``num_classes`` and ``class_counts``, which models and tasks
    are linked to, follow from it.
    """

    @property
    @abstractmethod
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Name of the class of each example, by split ("train", "validation", "test")."""

    @cached_property
    def label_names(self) -> list[str]:
        """Names of the classes of all splits: whole numbers by value, otherwise in alphabetical order."""
        return in_order({name for names in self.labels.values() for name in names})

    @property
    def train_labels(self) -> Tensor:
        """Index of the class of each training example, (n,) int64."""
        return self.label_indices("train")

    def label_indices(self, split: str) -> Tensor:
        """Return the index of the class of each example of a split, (n,) int64."""
        indices = {name: index for index, name in enumerate(self.label_names)}
        return torch.tensor([indices[name] for name in self.labels[split]], dtype=torch.long)
