"""Random data for any model, to test an adapter or measure training speed without data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from perceiver_plugins.sdk.data.loading import BatchDataset
from perceiver_plugins.sdk.data.module import PerceiverDataModule, check_positive
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver
from perceiver_registry import UserError


class RandomDataModule(PerceiverDataModule):
    """Random inputs from the model's input adapter, with random labels.

    A model can memorise the training examples, but not generalise from them.

    Args:
        num_examples: examples in each of the training, validation and test data.
        batch_size: examples per batch and device.
        seed: seed of the examples and their order; null: the seed of the run, or 0 if it has none.
    """

    def __init__(self, num_examples: int = 256, batch_size: int = 32, seed: int | None = None) -> None:
        super().__init__(batch_size, num_workers=0, seed=seed)
        check_positive(num_examples=num_examples)
        self.num_examples = num_examples

    @property
    def num_train_examples(self) -> int | None:
        """Number of training examples."""
        return self.num_examples

    def setup(self, stage: str | None = None) -> None:
        module = cast(LitPerceiver, self.trainer.lightning_module if self.trainer else None)
        if module is None:
            raise UserError("random data can only be used with a trainer, as it depends on the model")
        for number, split in enumerate(("train", "validation", "test")):
            generator = torch.Generator().manual_seed(self.seed * 3 + number)
            adapter: Any = module.model.input_adapter
            try:
                batch = dict(adapter.example_batch(self.num_examples, generator))
            except NotImplementedError as error:
                raise UserError(
                    f"{type(adapter).__name__}.example_batch is not implemented (required for random data)"
                ) from error
            with torch.no_grad():
                batch["labels"] = module.example_labels(batch, generator)
            self.split_datasets[split] = Rows(batch)


class Rows(BatchDataset):
    """Examples of one large batch.

    Args:
        examples: tensors, or dicts of tensors, whose first dimension is the example.
    """

    def __init__(self, examples: dict[str, Any]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples["labels"])

    def batch(self, epoch: int, indices: np.ndarray) -> dict[str, Any]:
        # Indices beyond the end, which occur with several processes, repeat examples.
        return cast("dict[str, Any]", _rows(self.examples, torch.from_numpy(indices % len(self))))


def num_examples(batch: Mapping[str, Any]) -> int:
    """Return the number of examples in a batch of tensors, or dicts of tensors."""
    first = next(iter(batch.values()))
    return num_examples(first) if isinstance(first, Mapping) else len(first)


def _rows(batch: Any, indices: Tensor) -> Any:
    if isinstance(batch, dict):
        return {name: _rows(value, indices) for name, value in batch.items()}
    return batch[indices]
