"""Examples of what a model produces, made from the first validation batch while it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from perceiver_plugins.sdk.tasks.pictures import optional


class ValidationSamples(Callback, ABC):
    """Base class of callbacks that create samples from the first batch of each validation.

    Validations before training, and data without a tokenizer, have no samples. An error becomes a warning.

    Args:
        num_samples: number of samples; 0: none.
    """

    noun: ClassVar[str]
    """Name of the samples in warnings, such as "samples of text"."""

    def __init__(self, num_samples: int):
        self.num_samples = num_samples

    @abstractmethod
    def create(self, trainer: Trainer, pl_module: LightningModule, tokenizer: Any, batch: dict[str, Tensor]) -> None:
        """Create the samples.

        Args:
            trainer: the trainer.
            pl_module: the task.
            tokenizer: tokenizer of the data.
            batch: the first validation batch.
        """

    @torch.no_grad()
    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: dict[str, Tensor],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        tokenizer = getattr(trainer.datamodule, "tokenizer", None)  # type: ignore[attr-defined]
        if batch_idx > 0 or self.num_samples == 0 or tokenizer is None or trainer.sanity_checking:
            return
        with optional(self.noun):
            self.create(trainer, pl_module, tokenizer, batch)
