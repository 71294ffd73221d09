"""Samples of text, logged while a language model trains."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, cast

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from perceiver_plugins.generation.samples import continue_rows
from perceiver_plugins.sdk.tasks.pictures import optional
from perceiver_plugins.sdk.tasks.samples import ValidationSamples
from perceiver_plugins.text.data.causal import document_bounds
from perceiver_registry.escaping import escape_line

MASK = "▒"
"""Character for a masked token in samples."""

MAX_PRINTED = 240
"""Largest number of characters of a sample that are printed (arbitrary); loggers receive the whole sample."""


NUM_PROMPT_TOKENS = 32
"""Tokens of validation text that are continued. Arbitrary."""

NUM_NEW_TOKENS = 128
"""Largest number of tokens that are generated for a sample. Arbitrary."""


class TextSamples(ValidationSamples):
    """Texts of the first validation examples, logged to TensorBoard at each validation, and printed at the end.

    Args:
        num_samples: number of samples.

    Attributes:
        samples: (given text, text of the model) of each sample in the latest validation.
    """

    noun = "samples of text"

    title: ClassVar[str]
    """Title of the printed samples."""

    labels: ClassVar[tuple[str, str]]
    """Names of the two texts of a sample."""

    def __init__(self, num_samples: int):
        super().__init__(num_samples)
        self.samples: list[tuple[str, str]] = []

    @abstractmethod
    def create_texts(
        self, pl_module: LightningModule, tokenizer: PreTrainedTokenizerBase, batch: dict[str, Tensor]
    ) -> list[tuple[str, str]]:
        """Create the samples of the first validation batch.

        Args:
            pl_module: the task.
            tokenizer: tokenizer of the data.
            batch: the batch.
        """

    def create(self, trainer: Trainer, pl_module: LightningModule, tokenizer: Any, batch: dict[str, Tensor]) -> None:
        self.samples = self.create_texts(pl_module, tokenizer, batch)

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        text = "\n\n".join(f"    {given}\n    {result}" for given, result in self.samples)
        for logger in trainer.loggers:
            if text and isinstance(logger, TensorBoardLogger):
                with optional(self.noun):
                    logger.experiment.add_text("samples", text, trainer.global_step)

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # in teardown, after the progress bar has been closed
        if self.samples and stage == "fit":
            width = max(map(len, self.labels))
            with optional(self.noun):
                print(f"\n{self.title}:")
                for sample in self.samples:
                    print()
                    for label, text in zip(self.labels, sample, strict=True):
                        print(f"  {label:{width}}  {text[:MAX_PRINTED]}")


class FillMaskSamples(TextSamples):
    """Fills in the masks of validation examples.

    Args:
        num_samples: number of examples.
    """

    title = "Validation text, masked and filled in"
    labels = ("masked", "filled")

    def __init__(self, num_samples: int = 4):
        super().__init__(num_samples)

    def create_texts(
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


class ContinuationSamples(TextSamples):
    """Writes a text from nothing, and continues the first tokens of validation examples.

    Tokens are drawn from the distribution of the model, by a generator of their own with a fixed seed.

    Args:
        num_samples: number of texts.
    """

    title = "Text from nothing, and continuations of validation text"
    labels = ("given", "continued")

    def __init__(self, num_samples: int = 2):
        super().__init__(num_samples)

    def create_texts(
        self, pl_module: LightningModule, tokenizer: PreTrainedTokenizerBase, batch: dict[str, Tensor]
    ) -> list[tuple[str, str]]:
        bounds = set(document_bounds(tokenizer))
        samples = []
        for tokens in continue_rows(
            pl_module.model, batch["input_ids"], self.num_samples, NUM_PROMPT_TOKENS, NUM_NEW_TOKENS, bounds
        ):
            given, written = (_decode(ids[~torch.isin(ids, torch.tensor([*bounds]))], tokenizer) for ids in tokens)
            samples.append((given or "(nothing)", written))
        return samples


def _decode(ids: Tensor, tokenizer: PreTrainedTokenizerBase) -> str:
    """Decode tokens to one line of text with ``MASK`` for masked tokens."""
    text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
    if tokenizer.mask_token is not None:
        text = text.replace(tokenizer.mask_token, MASK)
    return escape_line(" ".join(text.split()))
