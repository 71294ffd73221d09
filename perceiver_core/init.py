"""How a fresh model's weights start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from perceiver_core.model import PerceiverIO


@torch.no_grad()
def init_normal(module: nn.Module, scale: float) -> None:
    """Draws the weights of all linear layers and embeddings, and bare parameters, from N(0, scale); biases are zero."""
    for child in module.modules():
        if isinstance(child, nn.LayerNorm):
            continue
        for name, parameter in child.named_parameters(recurse=False):
            if name == "bias":
                parameter.zero_()
            else:
                parameter.normal_(0.0, scale)


def sinusoids(num_positions: int, num_channels: int) -> Tensor:
    """Sines and cosines of evenly spaced positions in one window.

    Args:
        num_positions: number n of positions; position i lies at (i + 1/2) / n of the window.
        num_channels: number c of channels: the first half are sines, the second half cosines. An odd last channel
            is zero.

    Returns:
        (n, c). The periods fall geometrically from the window's length to 1/64 of it.
    """
    num_periods = num_channels // 2
    positions = (torch.arange(num_positions) + 0.5) / num_positions
    frequencies = torch.logspace(0.0, math.log2(64), num_periods, base=2.0)
    phases = 2 * math.pi * positions[:, None] * frequencies[None]
    table = torch.zeros(num_positions, num_channels)
    table[:, :num_periods] = phases.sin()
    table[:, num_periods : 2 * num_periods] = phases.cos()
    return table


@torch.no_grad()
def init_local(model: PerceiverIO) -> None:
    """Starts attention local: what stands at a place is read by the latents of that place, and these answer for it.

    Learned input positions, latents and output queries start as the same sines and cosines of their place in the
    window, and the query and key projections of the two cross-attentions as the same orthogonal map of the channels
    that hold these. A model initialised by small random numbers has to discover this routing first.

    Raises:
        ValueError: if an adapter has no learned positions or queries.
    """
    positions = model.input_adapter.position_table
    queries = model.output_adapter.query_provider.query_table
    for adapter, table in ((model.input_adapter, positions), (model.output_adapter, queries)):
        if table is None:
            raise ValueError(f"init='local': {type(adapter).__name__} has no learned positions to initialise")
    latents = model.encoder.latents
    tables = [table for table in (positions, latents, queries) if table is not None]
    num_shared = min(table.shape[1] for table in tables)
    for table in tables:
        table[:, :num_shared] = sinusoids(table.shape[0], num_shared)

    for layer in (*model.encoder.cross_attention_layers, model.decoder.cross_attention_layer):
        attention = layer.attention
        num_qk_channels = attention.q_proj.out_features
        shared = nn.init.orthogonal_(torch.empty(num_qk_channels, num_shared))
        attention.q_proj.weight[:, :num_shared] = shared
        attention.k_proj.weight[:, :num_shared] = shared
