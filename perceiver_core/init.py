"""Normal initialisation."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def init_normal(module: nn.Module, scale: float) -> None:
    """Draw all parameters but those of layer norms from N(0, scale^2), and set biases to zero.

    Args:
        module: module to initialise, in-place.
        scale: standard deviation.
    """
    for child in module.modules():
        if isinstance(child, nn.LayerNorm):
            continue
        for name, parameter in child.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            else:
                parameter.normal_(0.0, scale)
