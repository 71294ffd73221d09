"""Samples of filled-in masks, logged while a language model trains."""

from __future__ import annotations

from typing import Any, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.sdk.tasks.pictures import optional
from perceiver_registry.escaping import escape_line

MASK = "▒"
"""Character for a masked token in samples."""

MAX_PRINTED = 240
"""Largest number of characters of a sample that are printed (arbitrary); loggers receive the whole sample."""


class FillMaskSamples(Callback):
    """Fills in the first validation examples at each validation, logs them to TensorBoard, and prints them at the end.

    Args:
        num_samples: number of examples.

    Attributes:
        samples: (text with masks, text with predicted tokens) of each example in the latest validation.
    """

    def __init__(self, num_samples: int = 4):
        self.num_samples = num_samples
        self.samples: list[tuple[str, str]] = []

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
        if batch_idx > 0 or self.num_samples == 0 or tokenizer is None:
            return
        with optional("samples of filled-in text"):
            self.samples = self._fill(pl_module, tokenizer, batch)

    def _fill(
        self, pl_module: LightningModule, tokenizer: PreTrainedTokenizerBase, batch: dict[str, Tensor]
    ) -> list[tuple[str, str]]:
        first = {name: tensor[: self.num_samples] for name, tensor in batch.items()}
        masked = first["labels"] >= 0
        logits = cast(nn.Module, pl_module.model)(first["input_ids"], first["attention_mask"], positions=masked)
        filled = first["input_ids"].masked_scatter(masked, logits.argmax(dim=-1))
        hidden = first["input_ids"].masked_fill(masked, tokenizer.mask_token_id)
        real = first["attention_mask"].bool()
        return [
            (_decode(before[mask], tokenizer), _decode(after[mask], tokenizer))
            for before, after, mask in zip(hidden, filled, real, strict=True)
        ]

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        text = "\n\n".join(f"    {before}\n    {after}" for before, after in self.samples)
        for logger in trainer.loggers:
            if text and isinstance(logger, TensorBoardLogger):
                with optional("samples of filled-in text"):
                    logger.experiment.add_text("samples", text, trainer.global_step)

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # in teardown, after the progress bar has been closed
        if self.samples and stage == "fit":
            with optional("samples of filled-in text"):
                print("\nValidation text, masked and filled in:")
                for before, after in self.samples:
                    print(f"\n  masked  {before[:MAX_PRINTED]}\n  filled  {after[:MAX_PRINTED]}")


def _decode(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    """Decode tokens to one line of text with ``MASK`` for masked tokens."""
    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return escape_line(" ".join(text.replace(tokenizer.mask_token, MASK).split()))
