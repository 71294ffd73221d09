"""The Perceiver language model (Perceiver IO, arXiv 2107.14795, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core import Batch, PerceiverConfig, PerceiverIO
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import build_adapters, load_pretrained


class LanguageModel(PerceiverIO):
    """Perceiver that predicts a token for each position of a sequence from the whole sequence.

    Args:
        config: configuration of the model. ``config.params`` may be the id of a published model
            (``deepmind/language-perceiver``), a local folder in the hub's layout, a checkpoint of this project or a
            safetensors file.

    Raises:
        UserError: if ``config.params`` cannot be loaded or does not fit the other values of ``config``.
        ValueError: if the values of ``config`` do not fit each other.
    """

    def __init__(self, config: PerceiverConfig[TextEncoderConfig, TextDecoderConfig]):
        super().__init__(config, *build_adapters(config))
        load_pretrained(self)

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | Batch,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        return_attention: bool = False,
    ) -> Any:
        """Compute the logits of tokens.

        Args:
            input_ids: (b, m), m at most ``max_seq_len``; or a batch with ``input_ids`` and ``attention_mask``.
            attention_mask: (b, m), true or 1 at tokens, false or 0 at padding. None: no padding.
            positions: positions to predict. None: all m. Integers (b, o): o positions per example. Booleans (b, m):
                any number of positions per example.
            return_attention: also return the attention weights.

        Returns:
            Logits (b, m, vocabulary), (b, o, vocabulary) for integer ``positions``, or (number of True, vocabulary) for
            boolean ``positions``. With ``return_attention``, a tuple of the logits and
            :class:`~perceiver_core.Attentions`.

        Raises:
            ValueError: if boolean ``positions`` do not have the shape of ``input_ids``.
        """
        if isinstance(input_ids, Mapping):
            batch: Batch = input_ids
        else:
            batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        ids: Tensor = batch["input_ids"]
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        elif positions.dtype == torch.bool:
            positions = self._pad_mask(positions, ids)
        return super().forward(batch, positions, return_attention)

    def _pad_mask(self, mask: Tensor, input_ids: Tensor) -> Tensor:
        """Extend a mask (b, m) of input positions to all ``max_seq_len`` output positions."""
        if mask.shape != input_ids.shape:
            expected, given = tuple(input_ids.shape), tuple(mask.shape)
            raise ValueError(f"positions: a boolean mask must have the shape of input_ids, {expected}, got {given}")
        unused = self.config.decoder.max_seq_len - mask.shape[1]
        return nn.functional.pad(mask, (0, unused)) if unused > 0 else mask
