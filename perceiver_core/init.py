"""How a fresh model's weights start."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from perceiver_core.layers import CrossAttentionLayer

if TYPE_CHECKING:
    from perceiver_core.attention import MultiHeadAttention
    from perceiver_core.model import PerceiverIO

SHORT = 128
"""Places of a window up to which the two below hold as they are."""

MAX_FREQUENCY = 64
"""Cycles per window of the fastest sine; in windows longer than SHORT, half as many as places."""

SHARPNESS = 1.5
"""How far an attention that starts local concentrates on its place: the norm of its query and key maps.

Among more places the score of the right one must stand out more: by the logarithm of their number, so that as many
places get most of the weight in a long window as in a short one.
"""


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


def frequencies(num_channels: int, max_frequency: float = MAX_FREQUENCY) -> Tensor:
    """Cycles per window of the sines and cosines that fill ``num_channels`` channels, from 1 geometrically upwards."""
    return torch.logspace(0.0, math.log2(max_frequency), num_channels // 2, base=2.0)


def sinusoids(num_positions: int, num_channels: int, max_frequency: float = MAX_FREQUENCY) -> Tensor:
    """Sines and cosines of evenly spaced positions in one window.

    Args:
        num_positions: number n of positions; position i lies at (i + 1/2) / n of the window.
        num_channels: number c of channels: first sines, then as many cosines. An odd last channel is zero.
        max_frequency: cycles per window of the fastest.

    Returns:
        (n, c), with the frequencies of :func:`frequencies`.
    """
    positions = (torch.arange(num_positions) + 0.5) / num_positions
    phases = 2 * math.pi * positions[:, None] * frequencies(num_channels, max_frequency)
    waves = torch.cat([phases.sin(), phases.cos()], dim=1)
    return nn.functional.pad(waves, (0, num_channels - waves.shape[1]))


@torch.no_grad()
def init_local(model: PerceiverIO) -> None:
    """Starts attention local: a place is read by the latents near it, and these answer for it.

    A model that starts with small random numbers must first discover how to route by position through its latents,
    and learns little until it has. Here,

    - learned input positions, latents and output queries start as the same sines and cosines of their place in the
      window, as large as a normal initialisation would make them;
    - the key projection of a cross-attention starts as an orthogonal map of these, and the query projection as the
      same map of the place at some distance, which differs from head to head: the heads of the encoder share the
      places between two latents, those of the decoder look at neighbouring latents;
    - the value and output projections of a cross-attention start as an orthogonal map and its inverse, so that what
      is read is passed on.

    Output queries that are no places of a sequence (those of a classifier), and the decoder with them, stay as they
    are.

    Raises:
        ValueError: if the input adapter has no learned positions.
    """
    positions = model.input_adapter.position_table
    query_provider = model.output_adapter.query_provider
    queries = query_provider.query_table if query_provider.ordered else None
    if positions is None:
        raise ValueError(f"init='local': {type(model.input_adapter).__name__} has no learned positions to initialise")
    latents, config = model.encoder.latents, model.config
    tables = [(positions, config.encoder.init_scale), (latents, config.encoder.init_scale)]
    if queries is not None:
        tables.append((queries, config.decoder.init_scale))
    num_shared = min(table.shape[1] for table, _ in tables)
    longer = max(1.0, positions.shape[0] / SHORT)
    max_frequency = MAX_FREQUENCY * longer  # neighbours are half a cycle apart
    sharpness = math.sqrt(SHARPNESS**2 + 0.8 * math.log(longer))
    for table, scale in tables:
        table[:, :num_shared] = math.sqrt(2) * scale * sinusoids(table.shape[0], num_shared, max_frequency)

    for layer in model.encoder.cross_attention_layers:
        assert isinstance(layer, CrossAttentionLayer)
        heads = layer.attention.num_heads
        offsets = _centred(heads) / heads / config.num_latents
        _init_local_attention(layer.attention, num_shared, offsets, max_frequency, sharpness)
    if query_provider.ordered:
        attention = model.decoder.cross_attention_layer.attention
        offsets = _centred(attention.num_heads) / config.num_latents
        _init_local_attention(attention, num_shared, offsets, max_frequency, sharpness)


def _centred(num_heads: int) -> Tensor:
    """0, 1, 2, ... for each head, shifted so that their mean is 0."""
    return torch.arange(num_heads) - (num_heads - 1) / 2


def _init_local_attention(
    attention: MultiHeadAttention, num_shared: int, offsets: Tensor, max_frequency: float, sharpness: float
) -> None:
    """Lets each head attend from a place to the place at its offset.

    Args:
        attention: the attention to initialise.
        num_shared: channels of query and key inputs that hold the sines and cosines of their place.
        offsets: (heads), in windows.
        max_frequency: cycles per window of the fastest of these sines and cosines.
        sharpness: norm of the query and key maps.
    """
    q_proj, k_proj, v_proj, o_proj = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
    key_map = sharpness * nn.init.orthogonal_(torch.empty(q_proj.out_features, num_shared))
    k_proj.weight[:, :num_shared] = key_map
    # sin(x + d) and cos(x + d) are linear in sin(x) and cos(x), so that a shift can be part of the projection.
    angles = 2 * math.pi * offsets[:, None, None] * frequencies(num_shared, max_frequency)
    sin, cos = angles.sin(), angles.cos()
    num_periods = num_shared // 2
    of_sines, of_cosines, rest = key_map.unflatten(0, (attention.num_heads, -1)).split(
        [num_periods, num_periods, num_shared % 2], dim=-1
    )
    query_map = torch.cat([of_sines * cos - of_cosines * sin, of_sines * sin + of_cosines * cos, rest], dim=-1)
    q_proj.weight[:, :num_shared] = query_map.flatten(0, 1)

    num_inputs, num_outputs = v_proj.in_features, o_proj.out_features
    value_map = nn.init.orthogonal_(torch.empty(v_proj.out_features, max(num_inputs, num_outputs)))
    v_proj.weight.copy_(value_map[:, :num_inputs])
    o_proj.weight.copy_(value_map[:, :num_outputs].T)
