"""Which examples a training run sees, in which order, and with which random numbers.

All of it is a function of a seed, an epoch and an index, and of nothing else: not of a global generator, not
of the number of worker processes, not of the rank. That makes a run repeatable, and resumable in the middle
of an epoch.
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
"""The label of what is not to be predicted, as in Hugging Face's and torch's losses."""

Key = tuple[int, int]
"""What a sampler asks a dataset for: (epoch, index)."""


def example_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one example in one epoch.

    Args:
        seed: Seed of the run; its low 64 bits count.
        epoch: Epoch that the example is seen in, from 0. Something that must not change from epoch to epoch
            (static masks, validation) uses -1 throughout.
        index: Place of the example in its data set, from 0.

    Returns:
        A generator for this example alone, independent of those for all other (seed, epoch, index).
    """
    # A counter-based generator: the three numbers are its key and counter, so creating it costs microseconds
    # and no two examples share a stream (the lowest counter word counts the draws).
    key = np.array([seed % 2**64, (epoch + 1) % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, index, 0]))


class BatchDataset(Dataset[dict[str, Any]], ABC):
    """Examples that are made a batch at a time, by operations on whole arrays; :func:`as_it_is` collates them.

    torch's loaders ask for all examples of a batch at once (``__getitems__``). All are of one epoch.
    """

    @abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abstractmethod
    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Any]:
        """A batch: a dict of tensors, and of dicts of these.

        Args:
            epoch: Epoch from 0; -1 in evaluation.
            indices: (b,) int64. One beyond the end asks for an example with nothing to predict.
        """

    def __getitems__(self, keys: Sequence[Key | int]) -> dict[str, Any]:
        """A batch of the examples with these keys (epoch, index), or indices alone, in evaluation."""
        if isinstance(keys[0], tuple):
            return self.batch(keys[0][0], np.array([index for _, index in cast("Sequence[Key]", keys)]))
        return self.batch(-1, np.array(keys))

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        """A single example, without the first dimension."""
        return cast("dict[str, Any]", _first(self.__getitems__([key])))


def _first(batch: Any) -> Any:
    return {name: _first(value) for name, value in batch.items()} if isinstance(batch, dict) else batch[0]


def as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    """What collates examples that are a batch already."""
    return batch


def loader_generator(seed: int) -> torch.Generator:
    """A generator for a DataLoader, which would otherwise draw its workers' seed from torch's global
    generator each time that it is iterated, so that a resumed run would differ from one left alone.
    """
    return torch.Generator().manual_seed(seed % 2**63)


class EpochSampler(DistributedSampler[Key]):
    """Shuffles anew each epoch, shares each batch among the ranks, and can start in the middle of an epoch.

    It yields keys (epoch, index), so that a data set knows the epoch even in worker processes that live on
    from epoch to epoch. The order is a function of (seed, epoch). With ``W`` ranks and ``batch_size``
    examples per rank, the ranks together see in step ``k`` what a single process with batches of ``W *
    batch_size`` sees in its step ``k``.

    Examples that do not fill a last batch are left out of that epoch, unless they are all there is: then the
    epoch is one small batch. All ranks yield equally many keys; in that one small batch, the first examples
    are repeated if the ranks cannot share it evenly.

    Being a ``DistributedSampler``, it is left as it is by Lightning. Its length is always that of a whole
    epoch, also where it starts in the middle of one, as Lightning counts the batches of an epoch that were
    seen before its restart.

    Args:
        size: Number of examples in the data set.
        batch_size: Examples per batch and rank.
        seed: Decides the order, with the epoch.
        shuffle: False yields the examples in their order.
        num_replicas: Number of ranks.
        rank: This process's rank.
        limit_batches: Batches per epoch and rank that are used: all of them, a number (int) or a fraction
            (float), as in Lightning's ``limit_train_batches``.
        progress: Returns how many batches this rank was trained on so far, in all epochs; each iteration
            starts there. :func:`batches_trained` is the trainer's. None: the epoch is the one that
            :meth:`set_epoch` says, from its beginning.

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
        """(epoch, batch in that epoch) at which an iteration that begins now begins."""
        if self.progress is None:
            return self.epoch, 0
        return divmod(self.progress(), self.batches_per_epoch)

    def order(self, epoch: int) -> np.ndarray:
        """The indices of all ranks' examples in the order of that epoch, ``total_size`` of them."""
        if self.shuffle:
            indices = np.random.default_rng([self.seed % 2**64, epoch]).permutation(self.size)
        else:
            indices = np.arange(self.size)
        # `resize` repeats from the start where the ranks need more than there is
        return np.resize(indices, self.total_size)

    def __iter__(self) -> Iterator[Key]:
        epoch, batch = self.state
        mine = self.order(epoch)[self.rank :: self.num_replicas]
        for index in mine[batch * self.batch_size : self.batches_per_epoch * self.batch_size].tolist():
            yield epoch, index


class TrainingLoader(DataLoader[Any]):
    """DataLoader that starts its workers when the first batch is taken, not when it is iterated.

    Lightning iterates the loader to estimate the number of steps, before it restores the progress of a resumed run.
    Worker processes that started then would prefetch from the beginning.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


class EvaluationSampler(DistributedSampler[int]):
    """Shares a data set among the ranks, in order and each example once: metrics do not depend on their number.

    All ranks yield equally many indices. Where they cannot share evenly, the last indices lie beyond the end of the
    data set, which then gives an example with nothing to predict.

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
    """How many batches (per rank) the trainer has trained on, in all epochs, those before a restart included.

    Lightning restores this number before it asks for the training data. Its number of epochs would not do:
    after a restart from a checkpoint that was written at the end of an epoch, with ``max_steps`` given,
    Lightning counts that epoch twice (2.6), and the batches of the next one would never be seen.
    """
    # `processed`, not `ready` or `completed`: a batch that was interrupted before its step is done again, one
    # whose checkpoint was written after its step, in the end-of-batch hooks, is not
    return cast("_ProcessedTracker", trainer.fit_loop.epoch_loop.batch_progress.total).processed
