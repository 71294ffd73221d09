"""Norms of attention layers."""

from __future__ import annotations

from typing import Literal

from torch import nn

Norm = Literal["layer", "rms"]
"""Kinds of norms."""

RMS_NORM_EPS = 1e-6
"""Constant added to the mean square; that of Llama and Idefics2 in transformers."""


def create_norm(num_channels: int, norm: Norm = "layer") -> nn.Module:
    """Create a layer norm, or a root-mean-square norm (arXiv 1910.07467).

    Args:
        num_channels: channels to normalise.
        norm: "layer" or "rms".
    """
    return nn.LayerNorm(num_channels) if norm == "layer" else nn.RMSNorm(num_channels, eps=RMS_NORM_EPS)
