"""Normal initialisation, and frozen parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from perceiver_core.config import ModelConfig


@torch.no_grad()
def init_normal(module: nn.Module, scale: float) -> None:
    """Draw all parameters but those of norms from N(0, scale^2), and set biases to zero.

    Args:
        module: module to initialise, in-place.
        scale: standard deviation.
    """
    for child in module.modules():
        if isinstance(child, nn.LayerNorm | nn.RMSNorm):
            continue
        for name, parameter in child.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            else:
                parameter.normal_(0.0, scale)


def freeze_parts(
    config: ModelConfig[Any, Any],
    input_adapter: nn.Module,
    encoder: nn.Module,
    decoder: nn.Module,
    output_adapter: nn.Module,
) -> None:
    """Freeze the parts of a model that ``config.encoder.freeze`` and ``config.decoder.freeze`` name, in-place.

    Weights that the output adapter shares with the input adapter follow the encoder's ``freeze``.

    Args:
        config: model config.
        input_adapter: input adapter, of the encoder's part.
        encoder: encoder.
        decoder: decoder.
        output_adapter: output adapter, of the decoder's part.
    """
    if config.encoder.freeze:
        input_adapter.requires_grad_(False)
        encoder.requires_grad_(False)
    if config.decoder.freeze:
        decoder.requires_grad_(False)
        tied = set(input_adapter.parameters())
        for parameter in output_adapter.parameters():
            if parameter not in tied:
                parameter.requires_grad_(False)
