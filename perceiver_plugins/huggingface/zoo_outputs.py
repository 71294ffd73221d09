"""What the models return: the outputs of ``transformers``, with the weights of cross-attentions beside them.

As of Hugging Face's Perceiver, ``attentions`` are those of the self-attentions, in the order in which they were
applied, and ``cross_attentions`` those of the encoder's cross-attentions and last the decoder's; each is (b, heads,
queries, keys).
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
    """Output of a model of any task.

    Args:
        last_hidden_state: the latents (b, n, d) after the encoder's last layer.
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
