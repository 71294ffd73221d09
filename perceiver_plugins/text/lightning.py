"""Lightning module of masked language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import Callback
from torch import Tensor
from torch.nn.functional import cross_entropy

from perceiver_core import Batch, PerceiverConfig
from perceiver_core.config import Init
from perceiver_plugins.sdk.data.loading import IGNORED
from perceiver_plugins.sdk.tasks.lightning import LitPerceiver, LossSum
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.model import LanguageModel
from perceiver_plugins.text.samples import FillMaskSamples
from perceiver_registry.assemble import require_perceiver_io


class LitLanguageModel(LitPerceiver):
    """Masked language model, trained to predict the tokens that the data module masks.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: encoder configuration for text.
        decoder: decoder configuration for text.
        num_samples: number of validation examples to fill in, log as text at each validation and print at the end.
    """

    task = "mlm"
    model: LanguageModel

    def __init__(
        self,
        encoder: TextEncoderConfig,
        decoder: TextDecoderConfig,
        num_latents: int = 256,
        num_latent_channels: int = 512,
        activation_checkpointing: bool = False,
        activation_offloading: bool = False,
        init: Init = "normal",
        params: str | None = None,
        compile: bool = False,
        optimizer: Mapping[str, Any] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        task: str | None = None,
        ema_decay: float | None = None,
        patience: int | None = None,
        num_samples: int = 4,
    ):
        super().__init__(
            encoder,
            decoder,
            num_latents,
            num_latent_channels,
            activation_checkpointing,
            activation_offloading,
            init,
            params,
            compile,
            optimizer,
            lr_scheduler,
            task,
            ema_decay,
            patience,
        )
        self.num_samples = num_samples

    def build(self, config: PerceiverConfig) -> LanguageModel:
        require_perceiver_io(config, f"--task={self.task}")
        return LanguageModel(config)

    def configure_callbacks(self) -> list[Callback]:
        return [*super().configure_callbacks(), FillMaskSamples(self.num_samples)]

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        masked = torch.rand(batch["input_ids"].shape, generator=generator) < 0.5
        return batch["input_ids"].masked_fill(~(masked & batch["attention_mask"].bool()), IGNORED)

    def forward(self, batch: Batch) -> Any:
        """Compute the logits (b, m, vocabulary) of a batch.

        Args:
            batch: ``input_ids`` (b, m) and, if there is padding, ``attention_mask`` (b, m).
        """
        return self.model(batch["input_ids"], batch.get("attention_mask"))

    def loss_sum(self, batch: Batch) -> LossSum:
        """Sum the cross-entropy, in nats, over the labelled positions. Others (label -100) are not decoded.

        Args:
            batch: ``input_ids``, ``labels`` and, if there is padding, ``attention_mask``, each (b, m).
        """
        masked = batch["labels"] != IGNORED
        logits = self.model(batch["input_ids"], batch.get("attention_mask"), positions=masked)
        total = cross_entropy(logits.float(), batch["labels"][masked], reduction="sum")
        return LossSum(total, masked.sum())
