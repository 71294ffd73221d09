"""Base class of data modules: loaders, worker processes, distribution among ranks."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader, Sampler

from perceiver_plugins.sdk.data.loading import (
    BatchDataset,
    EpochSampler,
    EvaluationSampler,
    TrainingLoader,
    batches_trained,
    identity_collate,
    loader_generator,
)
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

MAX_WORKERS = 8
"""Largest default number of worker processes per device. Arbitrary."""


def check_positive(**values: int | None) -> None:
    """Raise UserError if a value is less than 1; names are those of flags, and None is accepted."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be at least 1")


class PerceiverDataModule(LightningDataModule):
    """Base class of data modules, for repeatable, resumable and distributed runs.

    Subclasses fill :attr:`split_datasets` in ``setup``. Datasets return either whole
    batches (:class:`~perceiver_plugins.sdk.data.loading.BatchDataset`, which is faster) or single examples, which
    :attr:`collate_fn` collates. They are indexed by ``(epoch, index)`` in training, so that random numbers are a
    function of epoch, index and seed (:func:`~perceiver_plugins.sdk.data.loading.example_rng`), and by ``index`` in
    evaluation, where an index beyond the end returns an example with ignored labels (``IGNORED``, or NaN) as padding
    for the last batch of a process.

    Args:
        batch_size: Examples per batch and device, in training.
        valid_batch_size: Examples per batch and device in validation and test; null: the same as batch_size.
        num_workers: Worker processes per device; null: 0 on a CPU, otherwise the CPU cores per device, at most 8.
        seed: Seed of order and augmentation; null: the seed of the run (seed_everything), or 0 if it has no seed.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "no training data",
        "validation": "no validation data",
        "test": "no test data",
    }
    """Error messages of empty splits."""

    def __init__(
        self,
        batch_size: int = 64,
        valid_batch_size: int | None = None,
        num_workers: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(batch_size=batch_size, valid_batch_size=valid_batch_size)
        if num_workers is not None and num_workers < 0:
            raise UserError(f"num_workers={num_workers} must be at least 0")
        self.batch_size = batch_size
        self.valid_batch_size = valid_batch_size or batch_size
        self.num_workers = num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", 0)) if seed is None else seed
        self.known: Mapping[str, Any] = {}
        """Class names and statistics of a trained model, for evaluation without its training data."""
        self.inherited: Mapping[str, Any] = {}
        """Description of the data of the model that the run resumes, evaluates or starts from. What is fitted to the
        training data and belongs to the weights, such as a trained tokenizer, is taken from it."""
        self.split_datasets: dict[str, Any] = {}
        """Datasets of "train", "validation" and "test", if they exist."""

    multi_label: bool | None = None
    """True: labels are (b, classes), 0, 1, or NaN where unknown. False: class indices. None: other labels."""

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        """Write small files and return the arguments that load them, for the checks of ``perceiver_registry.testing``.

        A data module that needs no files has these arguments in its spec's ``example`` instead. Without either, its
        batches are not checked.

        Args:
            folder: an empty folder to write the files into.
        """
        raise NotImplementedError(f"{cls.__name__}.example")

    def description(self) -> dict[str, Any]:
        """Describe the data for prediction, as plain data that is stored in checkpoints."""
        return {}

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any] | None:
        """Collate function for datasets of single examples; None: torch's default."""
        return None

    def train_dataloader(self) -> DataLoader:
        """Create the loader of the training data, shuffled in each epoch and resumable within an epoch.

        Raises:
            DataError: If there is no training data.
        """
        dataset = self.examples("train")
        sampler = EpochSampler(
            len(dataset),
            self.batch_size,
            self.seed,
            num_replicas=self.num_replicas,
            rank=self.rank,
            limit_batches=self.trainer.limit_train_batches if self.trainer else 1.0,
            progress=partial(batches_trained, self.trainer) if self.trainer else None,
        )
        return self._loader(dataset, sampler, self.batch_size, TrainingLoader)

    def loading_state(self) -> dict[str, int]:
        """Return the values that determine, with the seed, the order of the training data; saved in checkpoints."""
        examples = len(self.split_datasets.get("train", ()))
        return {"batch_size": self.batch_size, "num_replicas": self.num_replicas, "examples": examples}

    @property
    def num_train_examples(self) -> int | None:
        """Number of training examples, which :meth:`setup` loads if necessary; None: unknown, as with streaming."""
        if not self.split_datasets:
            self.prepare_data()
            self.setup("fit")
        return len(self.split_datasets["train"]) if "train" in self.split_datasets else None

    def val_dataloader(self) -> DataLoader:
        """Create the loader of the validation data, in order.

        Raises:
            DataError: If there is no validation data.
        """
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader:
        """Create the loader of the test data, in order.

        Raises:
            DataError: If there is no test data.
        """
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """Create the loader of the test data for ``Trainer.predict``.

        Raises:
            DataError: If there is no test data.
        """
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: str) -> DataLoader:
        dataset = self.examples(split)
        sampler = EvaluationSampler(len(dataset), self.num_replicas, self.rank)
        return self._loader(dataset, sampler, self.valid_batch_size)

    def _loader(
        self, dataset: Any, sampler: Sampler[Any], batch_size: int, loader_class: type[DataLoader] = DataLoader
    ) -> DataLoader:
        options = self.loader_options()
        if isinstance(dataset, BatchDataset):
            options["collate_fn"] = identity_collate
        return loader_class(dataset, sampler=sampler, batch_size=batch_size, **options)

    def examples(self, split: str) -> Any:
        """Return the dataset of a split.

        Raises:
            DataError: If it does not exist or is empty.
        """
        dataset = self.split_datasets.get(split)
        if dataset is None or not len(dataset):
            raise DataError(self.missing_split[split])
        return dataset

    @property
    def num_replicas(self) -> int:
        """Number of processes that share the training data."""
        return int(self._distribution.get("num_replicas", 1))

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return int(self._distribution.get("rank", 0))

    @property
    def _distribution(self) -> dict[str, Any]:
        return (self.trainer.distributed_sampler_kwargs if self.trainer else None) or {}

    def loader_options(self) -> dict[str, Any]:
        """Return the ``DataLoader`` arguments that all loaders share."""
        device = self.trainer.strategy.root_device.type if self.trainer else "cpu"
        workers = self.num_workers
        if workers is None:
            per_process = (os.cpu_count() or 1) // (self.trainer.num_devices if self.trainer else 1)
            workers = 0 if device == "cpu" else max(1, min(MAX_WORKERS, per_process))
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "pin_memory": device == "cuda",
            "collate_fn": self.collate_fn,
            "generator": loader_generator(self.seed),
        }


class Classes:
    """Mixin for data modules with class labels: names and counts of the classes. List it as the first base."""

    @property
    @abstractmethod
    def label_names(self) -> list[str]:
        """Names of the classes, by index."""

    @property
    @abstractmethod
    def train_labels(self) -> Any:
        """Class indices (n,) of the training data, a tensor or an array."""

    multi_label: bool | None = False
    """Examples have any number of classes instead of one."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def class_counts(self) -> list[int]:
        """Number of training examples of each class."""
        if self.multi_label:
            return (torch.as_tensor(self.train_labels) == 1).sum(dim=0).tolist()
        return torch.bincount(torch.as_tensor(self.train_labels), minlength=self.num_classes).tolist()
