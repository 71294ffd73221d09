"""Samplers and random generators of data loading.

The order of examples and their random numbers are a function of seed, epoch and index: independent of global
generators, worker processes and rank. Runs are repeatable, and can be resumed within an epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from pytorch_lightning.loops.progress import _ProcessedTracker

IGNORED = -100
"""Label of ignored targets, as in the losses of torch and Hugging Face."""

Key = tuple[int, int]
"""Key of an example in training: (epoch, index)."""


def example_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Create the random generator of an example in an epoch.

    Args:
        seed: Seed of the run; the low 64 bits are used.
        epoch: Epoch from 0; -1 for random numbers that are the same in all epochs (static masks, validation).
        index: Index of the example in its data set.

    Returns:
        A generator that is independent of those of all other (seed, epoch, index).
    """
    # A counter-based generator is created within microseconds. Seed and epoch are its key, the index is a word of its
    # counter, whose lowest word counts the draws: streams do not overlap.
    key = np.array([seed % 2**64, (epoch + 1) % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, index, 0]))


class BatchDataset(Dataset[dict[str, Any]], ABC):
    """Base class of datasets that make whole batches by array operations; collate with :func:`identity_collate`.

    torch's loaders request all examples of a batch at once (``__getitems__``). They belong to the same epoch.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Any]:
        """Make a batch: a (nested) dict of tensors.

        Args:
            epoch: Epoch from 0; -1 in evaluation.
            indices: (b,) int64. An index beyond the end returns an example with ignored labels.
        """

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Any]:
        """Make a batch of the examples with the keys (epoch, index), or of indices in evaluation."""
        if isinstance(keys[0], tuple):
            return self.batch(keys[0][0], np.array([index for _, index in cast("Sequence[Key]", keys)]))
        return self.batch(-1, np.array(keys))

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """Make a single example, without the batch dimension."""
        return cast("dict[str, Any]", _first(self.__getitems__([key])))


def _first(batch: Any) -> Any:
    return {name: _first(value) for name, value in batch.items()} if isinstance(batch, dict) else batch[0]


def identity_collate(batch: dict[str, Any]) -> dict[str, Any]:
    """Collate function for batches of :class:`BatchDataset`: returns the batch unchanged."""
    return batch


def loader_generator(seed: int) -> torch.Generator:
    """Create the generator of a DataLoader.

    Without it, each iteration of a DataLoader would draw its workers' seed from torch's global generator, and a resumed
    run would differ from an uninterrupted one.
    """
    return torch.Generator().manual_seed(seed % 2**63)


class EpochSampler(DistributedSampler[Key]):
    """Sampler for training: shuffles each epoch, splits batches among ranks, and can start within an epoch.

    It yields keys (epoch, index), so that datasets in persistent worker processes know the epoch. The order is a
    function of (seed, epoch). With ``W`` ranks and ``batch_size`` examples per rank, step ``k`` of all ranks has the
    examples of step ``k`` of a single process with batches of ``W * batch_size``.

    Examples of an incomplete last batch are dropped, unless the epoch would be empty: then it is one small batch, in
    which the first examples are repeated if it cannot be split evenly. All ranks yield the same number of keys.

    Lightning does not replace it, as it is a ``DistributedSampler``. Its length is that of a whole epoch even if it
    starts within one, because Lightning counts the batches of an epoch before a restart.

    Args:
        size: Number of examples in the data set.
        batch_size: Examples per batch and rank.
        seed: Seed of the order.
        shuffle: Shuffle the examples in each epoch.
        num_replicas: Number of ranks.
        rank: This process's rank.
        limit_batches: Number (int) or fraction (float) of the batches per epoch and rank to use, as in Lightning's
            ``limit_train_batches``.
        progress: Returns the number of batches that this rank was trained on in all epochs, at which each iteration
            starts; see :func:`batches_trained`. None: start at the beginning of the epoch of :meth:`set_epoch`.

    Raises:
        ValueError: If there are no examples, or the batch size is not positive.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
        limit_batches: int | float = 1.0,
        progress: Callable[[], int] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"no examples to sample from: size={size}")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be positive")
        super().__init__(range(size), num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.size = size
        self.batch_size = batch_size
        whole = max(1, size // (num_replicas * batch_size))
        self.num_samples = min(whole * batch_size, -(-size // num_replicas))
        self.total_size = self.num_samples * num_replicas
        limit = limit_batches if isinstance(limit_batches, int) else int(whole * limit_batches)
        self.batches_per_epoch = max(1, min(whole, limit))
        self.progress = progress

    @property
    def state(self) -> Key:
        """Epoch, and index of the batch in it, at which an iteration starts."""
        if self.progress is None:
            return self.epoch, 0
        return divmod(self.progress(), self.batches_per_epoch)

    def order(self, epoch: int) -> np.ndarray:
        """Return the ``total_size`` indices of all ranks' examples in the order of an epoch."""
        if self.shuffle:
            indices = np.random.default_rng([self.seed % 2**64, epoch]).permutation(self.size)
        else:
            indices = np.arange(self.size)
        # `resize` repeats the first examples if the ranks need more than there are.
        return np.resize(indices, self.total_size)

    def __iter__(self) -> Iterator[Key]:
        epoch, batch = self.state
        indices = self.order(epoch)[self.rank :: self.num_replicas]
        for index in indices[batch * self.batch_size : self.batches_per_epoch * self.batch_size].tolist():
            yield epoch, index


class TrainingLoader(DataLoader[Any]):
    """DataLoader that starts its workers when the first batch is requested.

    Lightning creates an iterator to estimate the number of steps before it restores the progress of a resumed run.
    Worker processes that started then would prefetch from the beginning of the data.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


class EvaluationSampler(DistributedSampler[int]):
    """Sampler for evaluation: splits a data set among ranks, in order and without repetition.

    All ranks yield the same number of indices. Indices beyond the end of the data set pad an uneven split; its dataset
    returns examples with ignored labels for them. Metrics are independent of the number of ranks.

    Args:
        size: Number of examples in the data set.
        num_replicas: Number of ranks.
        rank: This process's rank.
    """

    def __init__(self, size: int, num_replicas: int = 1, rank: int = 0) -> None:
        super().__init__(range(size), num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, self.total_size, self.num_replicas))


def batches_trained(trainer: Trainer) -> int:
    """Return the number of batches per rank that the trainer has trained on, including those before a restart.

    Lightning restores this number before it requests the training data. The number of epochs is not reliable: with
    ``max_steps``, Lightning 2.6 counts an epoch twice after a restart from a checkpoint at its end, which would skip
    the next one.
    """
    # `processed`, not `ready` or `completed`: a batch that was interrupted before its step is repeated; one whose
    # checkpoint was written after its step, in the end-of-batch hooks, is not.
    return cast("_ProcessedTracker", trainer.fit_loop.epoch_loop.batch_progress.total).processed
