"""The data module that tasks' data modules build on: loaders, workers, and how a data set is shared among processes."""

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
    as_it_is,
    batches_trained,
    loader_generator,
)
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry.errors import UserError

MAX_WORKERS = 8


def check_positive(**values: int | None) -> None:
    """Raises UserError unless each value, by its flag's name, is at least 1 or None."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise UserError(f"{name}={value} must be at least 1")


class PerceiverDataModule(LightningDataModule):
    """Loads a data set's splits so that runs can be repeated, resumed, and shared among processes.

    Subclasses fill :attr:`split_datasets` in ``setup``. Their data sets either make whole batches
    (:class:`~perceiver_plugins.sdk.data.loading.BatchDataset`, the faster way), or :attr:`collate_fn` says how examples
    become a batch. They are asked for ``(epoch, index)`` in training, so that what is drawn by chance can depend on
    these and on the seed alone (:func:`~perceiver_plugins.sdk.data.loading.example_rng`), and for ``index`` in
    evaluation. There, an index beyond the end asks for an example with nothing to predict (the label ``IGNORED``, or a
    target that is no number), which fills up the last batch of a process.

    Args:
        batch_size: Examples per batch and device, in training.
        valid_batch_size: Examples per batch and device in validation and test; null: the same as batch_size.
        num_workers: Processes per device that load data; null: none on CPU, otherwise up to 8, depending on
            the cores.
        seed: Seed of order and chance; null: the seed of the run (seed_everything), or 0 if there is none.
    """

    missing_split: ClassVar[dict[str, str]] = {
        "train": "there is no data for training",
        "validation": "there is no data for validation",
        "test": "there is no test data",
    }
    """What to say where there is nothing in a split."""

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
        """Names of classes and statistics of a trained model, for evaluation without its training data."""
        self.split_datasets: dict[str, Any] = {}
        """The data sets of "train", "validation" and "test", as far as there are any."""

    @classmethod
    def example(cls, folder: Path) -> Mapping[str, Any]:
        """Write small files and return the arguments that load them, for the checks of ``perceiver_registry.testing``.

        Data modules that need no files have arguments in their spec's ``example`` instead. With neither, their batches
        are not checked.

        Args:
            folder: an empty folder to write the files into.
        """
        raise NotImplementedError(f"{cls.__name__}.example")

    def description(self) -> dict[str, Any]:
        """What prediction needs to know about the data, as plain data: it goes into checkpoints."""
        return {}

    @property
    def collate_fn(self) -> Callable[[list[Any]], Any] | None:
        """Makes a batch of the examples of a data set that makes none itself; None: torch's own way."""
        return None

    def train_dataloader(self) -> DataLoader:
        """Shuffled anew in each epoch. After a restart it goes on where training was, within an epoch too.

        Raises:
            DataError: If there is nothing to train on.
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
        """Values that, besides the seed, decide the order of the training data; saved in checkpoints."""
        examples = len(self.split_datasets.get("train", ()))
        return {"batch_size": self.batch_size, "num_replicas": self.num_replicas, "examples": examples}

    def val_dataloader(self) -> DataLoader:
        """In order, the same each time.

        Raises:
            DataError: If there is nothing to validate on.
        """
        return self._evaluation_loader("validation")

    def test_dataloader(self) -> DataLoader:
        """In order, the same each time.

        Raises:
            DataError: If there is no test data.
        """
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader:
        """The test data, for ``Trainer.predict``.

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
            options["collate_fn"] = as_it_is
        return loader_class(dataset, sampler=sampler, batch_size=batch_size, **options)

    def examples(self, split: str) -> Any:
        """The data set of a split.

        Raises:
            DataError: If there is none, or nothing in it.
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
        """Which of them this is."""
        return int(self._distribution.get("rank", 0))

    @property
    def _distribution(self) -> dict[str, Any]:
        return (self.trainer.distributed_sampler_kwargs if self.trainer else None) or {}

    def loader_options(self) -> dict[str, Any]:
        """What all loaders have in common."""
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
    """What data modules say of the classes that their examples belong to: mix it in before the data module."""

    @property
    @abstractmethod
    def label_names(self) -> list[str]:
        """What the classes are called, in the order of their numbers."""

    @property
    @abstractmethod
    def train_labels(self) -> Any:
        """The numbers (n,) of the classes of the training data, a tensor or an array."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def class_counts(self) -> list[int]:
        """How often each class occurs in the training data."""
        return torch.bincount(torch.as_tensor(self.train_labels), minlength=self.num_classes).tolist()
