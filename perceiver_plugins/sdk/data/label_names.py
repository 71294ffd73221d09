"""Mixin for data modules whose classes are the labels of their data."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from perceiver_plugins.sdk.data.class_names import sort_names
from perceiver_plugins.sdk.data.module import Classes


class NamedLabels(Classes):
    """Mixin for data modules whose classes are the labels of their data. Put it before the data module's class.

    Subclasses implement :attr:`labels`, from which ``label_names``, ``num_classes`` and ``class_counts`` are derived.
    """

    @property
    @abstractmethod
    def labels(self) -> Mapping[str, Sequence[str]]:
        """Class name of each example, by split ("train", "validation", "test")."""

    @cached_property
    def label_names(self) -> list[str]:
        """Sorted names of the classes of all splits: integers by value, otherwise alphabetically."""
        return sort_names({name for names in self.labels.values() for name in names})

    @property
    def train_labels(self) -> Tensor:
        """Class index of each training example, (n,) int64."""
        return self.label_indices("train")

    def label_indices(self, split: str) -> Tensor:
        """Return the class index of each example of a split, (n,) int64."""
        indices = {name: index for index, name in enumerate(self.label_names)}
        return torch.tensor([indices[name] for name in self.labels[split]], dtype=torch.long)
