"""Training of language models with Lightning."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback
from torch.nn.functional import cross_entropy

from perceiver_core import Batch, PerceiverConfig
from perceiver_plugins.text.model import LanguageModel
from perceiver_plugins.text.samples import FillMaskSamples
from perceiver_plugins.training.lightning import LitPerceiver, LossSum
from perceiver_plugins.training.loading import IGNORED
from perceiver_registry import UserError


class LitLanguageModel(LitPerceiver):
    """A masked language model: predicts the tokens that a data module masked.

    Args:
        config: the model's configuration, or the same as plain data.
        optimizer: name (under ``"name"``) and arguments of the optimizer. None: AdamW with a learning rate of 1e-3.
        lr_scheduler: name and arguments of the learning rate schedule. None: the learning rate stays constant.
        num_samples: how many validation examples are filled in, logged as text at each validation and shown at the
            end. 0: none.
    """

    task = "mlm"
    model: LanguageModel

    def __init__(
        self,
        config: PerceiverConfig | Mapping[str, Any],
        optimizer: Mapping[str, Any] | None = None,
        lr_scheduler: Mapping[str, Any] | None = None,
        num_samples: int = 4,
    ):
        super().__init__(config, optimizer, lr_scheduler)
        self.num_samples = num_samples

    def build(self, config: PerceiverConfig) -> LanguageModel:
        return LanguageModel(config)

    def configure_callbacks(self) -> list[Callback]:
        return [FillMaskSamples(self.num_samples)]

    def check_data(self, datamodule: Any) -> None:
        """Checks that the data's tokens and lengths fit the model.

        Raises:
            UserError: if they do not.
        """
        encoder = self.config.encoder
        for field, fits in (("vocab_size", operator.eq), ("max_seq_len", operator.le)):
            data_value, model_value = getattr(datamodule, field, None), getattr(encoder, field)
            if data_value is not None and not fits(data_value, model_value):
                raise UserError(
                    f"the data's {field}={data_value} does not fit the model's {field}={model_value}; "
                    "give the data module the tokenizer and length that the model was made for"
                )

    def loss_sum(self, batch: Batch) -> LossSum:
        """The summed cross-entropy, in nats, of the labels other than -100. Only their places are decoded.

        Args:
            batch: ``input_ids``, ``attention_mask`` and ``labels``, each (b, n).
        """
        masked = batch["labels"] != IGNORED
        logits = self.model(batch["input_ids"], batch["attention_mask"], positions=masked)
        total = cross_entropy(logits.float(), batch["labels"][masked], reduction="sum")
        return LossSum(total, masked.sum())
