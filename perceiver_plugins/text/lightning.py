"""Training of language models with Lightning."""

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


class LitLanguageModel(LitPerceiver):
    """A masked language model: predicts the tokens that a data module masked.

    The arguments up to ``patience`` are those of :class:`~perceiver_plugins.sdk.tasks.lightning.LitPerceiver`.

    Args:
        encoder: the encoder's configuration, of text.
        decoder: the decoder's configuration, of text.
        num_samples: how many validation examples are filled in, logged as text at each validation and shown at the
            end. 0: none.
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
        return LanguageModel(config)

    def configure_callbacks(self) -> list[Callback]:
        return [*super().configure_callbacks(), FillMaskSamples(self.num_samples)]

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        masked = torch.rand(batch["input_ids"].shape, generator=generator) < 0.5
        return batch["input_ids"].masked_fill(~(masked & batch["attention_mask"].bool()), IGNORED)

    def forward(self, batch: Batch) -> Any:
        """Compute the logits (b, n, vocabulary) of a batch.

        Args:
            batch: ``input_ids`` (b, n) and, where there is padding, ``attention_mask`` (b, n).
        """
        return self.model(batch["input_ids"], batch.get("attention_mask"))

    def loss_sum(self, batch: Batch) -> LossSum:
        """The summed cross-entropy, in nats, of the labels other than -100. Only their places are decoded.

        Args:
            batch: ``input_ids``, ``attention_mask`` and ``labels``, each (b, n).
        """
        masked = batch["labels"] != IGNORED
        logits = self.model(batch["input_ids"], batch["attention_mask"], positions=masked)
        total = cross_entropy(logits.float(), batch["labels"][masked], reduction="sum")
        return LossSum(total, masked.sum())
