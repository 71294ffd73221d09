"""Model outputs: those of ``transformers``, with the attention weights of cross-attentions.

As in Hugging Face's Perceiver, ``attentions`` has the weights of the self-attention layers in order, and
``cross_attentions`` those of the encoder's cross-attention layers and of the decoder, each (b, heads, queries, keys).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import (
    ImageClassifierOutput,
    MaskedLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import ModelOutput


@dataclass
class ZooOutput(ModelOutput):
    """Output of :class:`~perceiver_plugins.huggingface.zoo_models.ZooModel`.

    Args:
        last_hidden_state: the latents (b, n, d) of ``perceiver.encode``.
        output: the output adapter's output.
        hidden_states: the latents before the first self-attention layer of each block, and after each layer.
        attentions: attention weights of the self-attentions.
        cross_attentions: attention weights of the cross-attentions.
    """

    last_hidden_state: Tensor | None = None
    output: Any = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class ZooMaskedLMOutput(MaskedLMOutput):
    """``MaskedLMOutput`` with ``cross_attentions``."""

    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class ZooSequenceClassifierOutput(SequenceClassifierOutput):
    """``SequenceClassifierOutput`` with ``cross_attentions``."""

    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class ZooImageClassifierOutput(ImageClassifierOutput):
    """``ImageClassifierOutput`` with ``cross_attentions``."""

    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class ZooTokenClassifierOutput(TokenClassifierOutput):
    """``TokenClassifierOutput`` with ``cross_attentions``."""

    cross_attentions: tuple[Tensor, ...] | None = None
