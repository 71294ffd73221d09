"""Samples of what a language model fills in, to look at while it trains."""

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
"""Stands for a masked token where a sample is shown."""

SHOWN = 240
"""How many characters of a sample are printed; all of them are logged."""


class FillMaskSamples(Callback):
    """Fills in the first validation examples at each validation, logs them to TensorBoard, and prints them at the end.

    Args:
        num_samples: how many examples; 0: none.
    """

    def __init__(self, num_samples: int = 4):
        self.num_samples = num_samples
        self.samples: list[tuple[str, str]] = []
        """(text with masks, text as filled in), of the latest validation."""

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
            (_show(before[mask], tokenizer), _show(after[mask], tokenizer))
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
        # At the very end, when no progress bar is drawn any more.
        if self.samples and stage == "fit":
            with optional("samples of filled-in text"):
                print("\nValidation text, masked and filled in:")
                for before, after in self.samples:
                    print(f"\n  masked  {before[:SHOWN]}\n  filled  {after[:SHOWN]}")


def _show(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    """``ids`` as one line of text in which masks stand out."""
    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    return escape_line(" ".join(text.replace(tokenizer.mask_token, MASK).split()))
