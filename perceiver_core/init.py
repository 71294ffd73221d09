"""How a fresh model's weights start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from perceiver_core.adapters import InputQueryProvider
from perceiver_core.layers import CrossAttentionLayer

if TYPE_CHECKING:
    from perceiver_core.attention import MultiHeadAttention
    from perceiver_core.perceiver_io import PerceiverIO

SHORT = 128
"""Places of a window up to which the two below hold as they are."""

MAX_FREQUENCY = 64
"""Cycles per window of the fastest sine; in windows longer than SHORT, half as many as places."""

SHARPNESS = 1.5
"""How far an attention that starts local concentrates on its place: the norm of its query and key maps.

Among more places the score of the right one must stand out more: by the logarithm of their number, so that as many
places get most of the weight in a long window as in a short one.
"""

LAST_OF_BRANCHES = ("attention.o_proj.weight", "mlp.output.weight")
"""Names of the last weights of the branches beside a layer's residual connections."""

MARGIN = 5.0
"""How far the score of a place that is near a latent lies above the others', beyond the logarithm of the latents.

With that logarithm alone, a latent's share of a grid and all the rest would get the same weight.
"""

MIN_CONTRAST = 0.1
"""How much more similar a latent is at least taken to be to the places of its share than to others.

Where there is less to tell apart, with one latent or one place, attention starts broad.
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
    and learns little until it has. Here, latents start as what the input's positions are at evenly spaced places, and
    cross-attentions with query and key maps that let the same place find itself. How depends on the positions:

    - Learned positions of a sequence: see :func:`_init_sequence`.
    - All other positions, of a sequence or of a grid of any dimensions: see :func:`_init_grid`.

    Output queries that are no places of the input (those of a classifier), and the decoder with them, stay as they
    are.

    Raises:
        ValueError: if the input adapter has no positions.
    """
    adapter = model.input_adapter
    positions = adapter.positions_on_grid()
    if positions is None:
        raise ValueError(f"init='local': {type(adapter).__name__} has no positions to start from")
    if positions.dim() == 2 and adapter.position_table is not None:
        _init_sequence(model, adapter.position_table)
    else:
        _init_grid(model)


def _init_sequence(model: PerceiverIO, positions: Tensor) -> None:
    """Starts attention local along a sequence with learned positions (m, f).

    - Input positions, latents and ordered output queries start as the same sines and cosines of their place in the
      window, as large as a normal initialisation would make them;
    - the key projection of a cross-attention starts as an orthogonal map of these, and the query projection as the
      same map of the place at some distance, which differs from head to head: the heads of the encoder share the
      places between two latents, those of the decoder look at neighbouring latents;
    - the value and output projections of a cross-attention start as an orthogonal map and its inverse, so that what
      is read is passed on;
    - the last weights of self-attention layers' branches start smaller by the root of the number of branches (as in
      GPT-2, Radford et al. 2019, section 2.3), so that what is read is not drowned in what the layers add to it.
    """
    query_provider = model.output_adapter.query_provider
    queries = query_provider.query_table if query_provider.ordered else None
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
        _look_at_offset(layer.attention, num_shared, offsets, max_frequency, sharpness)
        _pass_on(layer.attention)
    num_layers = config.encoder.num_self_attention_blocks * config.encoder.num_self_attention_layers_per_block
    for name, weight in model.encoder.self_attention_blocks.named_parameters():
        if name.endswith(LAST_OF_BRANCHES):
            weight.div_(math.sqrt(len(LAST_OF_BRANCHES) * num_layers))
    if query_provider.ordered:
        attention = model.decoder.cross_attention_layer.attention
        offsets = _centred(attention.num_heads) / config.num_latents
        _look_at_offset(attention, num_shared, offsets, max_frequency, sharpness)
        _pass_on(attention)


def _init_grid(model: PerceiverIO) -> None:
    """Starts attention local on a grid of places, with learned or with given positions.

    - Learned positions start as sines and cosines of their place in each dimension of the grid;
    - each latent starts as the mean of the positions around its own place, as large as a normal initialisation would
      make it. The mean leaves out what changes within the latent's share of the grid, so that the latent finds all
      of its share alike, however fine the positions are;
    - the query and key projections of a cross-attention start as the same orthogonal map of these;
    - the value and output projections of a cross-attention start as an orthogonal map and its inverse.

    The decoder starts like this where the input itself asks.
    """
    adapter, latents, scale = model.input_adapter, model.encoder.latents, model.config.encoder.init_scale
    positions = adapter.positions_on_grid()
    assert positions is not None
    if (table := adapter.position_table) is not None:
        table.copy_(math.sqrt(2) * scale * grid_sinusoids(positions.shape[:-1], table.shape[1]).flatten(0, -2))
        positions = adapter.positions_on_grid()
        assert positions is not None
    num_channels = positions.shape[-1]
    first = adapter.num_input_channels - num_channels
    means, weights = local_means(positions, latents.shape[0])
    similarity = nn.functional.normalize(means) @ nn.functional.normalize(positions.flatten(0, -2)).T
    contrast = ((weights * similarity).sum(dim=1).mean() - similarity.mean()).clamp(min=MIN_CONTRAST)
    score = (MARGIN + math.log(latents.shape[0])) / contrast
    # Latents of fewer channels hold a projection of the positions, which keeps their distances on the whole.
    num_shared = min(num_channels, latents.shape[1])
    projection = nn.init.orthogonal_(torch.empty(num_channels, num_shared))
    means = means @ projection
    latents[:, :num_shared] = scale * means / means.square().mean(dim=1, keepdim=True).sqrt()

    for layer in model.encoder.cross_attention_layers:
        assert isinstance(layer, CrossAttentionLayer)
        of_positions = _map_of_positions(layer.attention, num_channels, score)
        layer.attention.k_proj.weight[:, first:] = of_positions
        layer.attention.q_proj.weight[:, :num_shared] = of_positions @ projection
        _pass_on(layer.attention)
    if isinstance(model.output_adapter.query_provider, InputQueryProvider):
        attention = model.decoder.cross_attention_layer.attention
        of_positions = _map_of_positions(attention, num_channels, score)
        attention.q_proj.weight[:, first:] = of_positions
        attention.k_proj.weight[:, :num_shared] = of_positions @ projection
        _pass_on(attention)


def _map_of_positions(attention: MultiHeadAttention, num_channels: int, score: Tensor) -> Tensor:
    """An orthogonal map of normed positions whose scores are as large as asked for.

    Args:
        attention: the attention that it is for.
        num_channels: channels of the positions.
        score: the score of a position for itself.

    Returns:
        (query and key channels, ``num_channels``).
    """
    num_qk_channels = attention.q_proj.out_features
    # The norm's output has a square of 1 a channel; each head has its part of it, and divides by its channels' root.
    of_unit_map = min(num_channels, num_qk_channels) / math.sqrt(num_qk_channels * attention.num_heads)
    return (score / of_unit_map).sqrt() * nn.init.orthogonal_(torch.empty(num_qk_channels, num_channels))


def grid_sinusoids(grid: Sequence[int], num_channels: int) -> Tensor:
    """Sines and cosines of the places of a grid: in each dimension's share of the channels those of its places.

    Args:
        grid: the grid's length in each of d dimensions. The fastest sine changes its sign from place to place.
        num_channels: number c of channels; what cannot be shared equally is zero.

    Returns:
        (*grid, c).
    """
    share = num_channels // len(grid)
    waves = torch.zeros(*grid, num_channels)
    for dimension, length in enumerate(grid):
        shape = [length if each == dimension else 1 for each in range(len(grid))]
        of_dimension = sinusoids(length, share, max_frequency=max(1.0, length / 2))
        waves[..., dimension * share : (dimension + 1) * share] = of_dimension.view(*shape, share)
    return waves


def spread(num_places: int, grid: Sequence[int]) -> list[tuple[float, ...]]:
    """Any number of places, about evenly on a grid: rows at equal distances, each with about as many places.

    Args:
        num_places: how many.
        grid: the grid's length in each of d dimensions.

    Returns:
        Coordinates in units of the grid's own places: place i of a dimension lies at i + 1/2.
    """
    if not grid:
        return [()] * num_places
    length, rest = grid[0], grid[1:]
    as_near_as_in_a_row = (num_places * length ** len(rest) / math.prod(rest)) ** (1 / len(grid))
    num_rows = min(num_places, max(1, round(as_near_as_in_a_row)))
    return [
        ((row + 0.5) / num_rows * length, *place)
        for row in range(num_rows)
        for place in spread(num_places // num_rows + (row < num_places % num_rows), rest)
    ]


def local_means(values: Tensor, num_means: int) -> tuple[Tensor, Tensor]:
    """Means of values (*grid, f) around evenly spread places, each over its share of the grid.

    The weights are a Gaussian's whose deviation is half the distance of two such places.

    Returns:
        The means (n, f), and the weights (n, m) of the m places of the grid, row by row.
    """
    grid = values.shape[:-1]
    centres = torch.tensor(spread(num_means, grid))
    places = torch.cartesian_prod(*(torch.arange(length) + 0.5 for length in grid)).view(-1, len(grid))
    deviation = (math.prod(grid) / num_means) ** (1 / len(grid)) / 2
    weights = (-(torch.cdist(centres, places) / deviation).square() / 2).softmax(dim=1).to(values)
    return weights @ values.flatten(0, -2), weights


def _centred(num_heads: int) -> Tensor:
    """0, 1, 2, ... for each head, shifted so that their mean is 0."""
    return torch.arange(num_heads) - (num_heads - 1) / 2


def _look_at_offset(
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
    q_proj, k_proj = attention.q_proj, attention.k_proj
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


def _pass_on(attention: MultiHeadAttention) -> None:
    """Lets the value and output projections pass on what is read."""
    v_proj, o_proj = attention.v_proj, attention.o_proj
    num_inputs, num_outputs = v_proj.in_features, o_proj.out_features
    value_map = nn.init.orthogonal_(torch.empty(v_proj.out_features, max(num_inputs, num_outputs)))
    v_proj.weight.copy_(value_map[:, :num_inputs])
    o_proj.weight.copy_(value_map[:, :num_outputs].T)
