"""Local initialisation: attention that starts local, on a sequence or a grid of input positions.

A model that starts with small random weights must first learn to route by position through its latents, and learns
little until it has. With local initialisation, latents start as the positions of evenly spaced points of the input, and
the query and key projections of the cross-attentions let a position find itself.

benchmarks/learning_speed.py compares local with normal initialisation, and leaves out its parts one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_core.adapters import InputAdapter, QueryProvider
from perceiver_core.attention import MultiHeadAttention
from perceiver_core.layers import SelfAttentionLayer
from perceiver_core.position_layout import PositionLayout

REFERENCE_LENGTH = 128
"""Sequence length up to which :data:`MAX_FREQUENCY` and :data:`SHARPNESS` are used unchanged.

The length of the case ``python-docs`` of benchmarks/learning_speed.py.
"""

MAX_FREQUENCY = 64
"""Highest frequency of sinusoids in cycles per sequence: half of :data:`REFERENCE_LENGTH`, the Nyquist frequency."""

SHARPNESS = 1.5
"""Norm of the query and key projections on a sequence of up to :data:`REFERENCE_LENGTH` positions.

The larger it is, the more attention concentrates on one position. Arbitrary; not tuned beyond the cases ``python-docs``
and ``imdb`` of benchmarks/learning_speed.py.
"""

SHARPNESS_GROWTH = 0.8
"""Growth of the squared sharpness with the logarithm of the sequence length.

Among more positions the score of the right one must exceed the others by more, by the logarithm of their number, so
that as many positions get most of the weight in a long sequence as in a short one. The factor is arbitrary; the case
``imdb`` of benchmarks/learning_speed.py (256 positions) measures it.
"""

MARGIN = 5.0
"""Difference between the scores of near and far positions on a grid, beyond the logarithm of the number of latents.

With that logarithm alone, a latent's share of the grid and the rest of the grid would get the same weight. Arbitrary;
the case ``mnist`` of benchmarks/learning_speed.py measures it.
"""

MIN_CONTRAST = 0.1
"""Lower bound of how much more similar a latent is to the positions of its share of the grid than to others.

Where there is less to distinguish, with one latent or one position, attention starts broad. Arbitrary.
"""


@dataclass(frozen=True)
class LocalInitParts:
    """LocalInitParts of a model that local initialisation writes to.

    Args:
        input_adapter: input adapter.
        query_provider: provider of the output queries.
        latents: latents (n, d).
        encoder_attentions: cross-attentions from the latents to the input.
        decoder_attention: cross-attention from the output queries to the latents. None: the decoder pools the latents.
        self_attention_layers: self-attention layers of the latents, each set of weights once.
        num_self_attention_applications: how often self-attention layers are applied, repetitions included.
        encoder_scale: standard deviation of the encoder's normal initialisation.
        decoder_scale: standard deviation of the decoder's normal initialisation.
    """

    input_adapter: InputAdapter
    query_provider: QueryProvider
    latents: Tensor
    encoder_attentions: Sequence[MultiHeadAttention]
    decoder_attention: MultiHeadAttention | None
    self_attention_layers: Sequence[SelfAttentionLayer]
    num_self_attention_applications: int
    encoder_scale: float
    decoder_scale: float


@torch.no_grad()
def init_local(parts: LocalInitParts) -> None:
    """Initialise a model, after normal initialisation, such that attention starts local.

    Sequences with learned positions: see :func:`_init_sequence`. All others: see :func:`_init_grid`. Output queries
    that are not positions of a sequence or of the input (those of a classifier), and the decoder with them, stay
    unchanged.

    Raises:
        ValueError: if the input adapter has no position layout.
    """
    inputs = parts.input_adapter.position_layout()
    if inputs is None:
        raise ValueError(f"init='local': {type(parts.input_adapter).__name__} has no positions to start from")
    outputs = parts.query_provider.position_layout(inputs)
    if inputs.positions.dim() == 2 and inputs.table is not None:
        _init_sequence(parts, inputs.table, inputs, outputs)
    else:
        _init_grid(parts, inputs, outputs)


def _init_sequence(
    parts: LocalInitParts, table: Tensor, inputs: PositionLayout, outputs: PositionLayout | None
) -> None:
    """Initialise attention along a sequence with learned positions (m, c).

    - Learned input positions, latents and learned output queries in order start as the same sinusoids of their position
      in the sequence, scaled like a normal initialisation.
    - The key projection of a cross-attention starts as an orthogonal map of these, and the query projection as the same
      map of the position at an offset, which differs between heads: the heads of the encoder share the positions
      between two latents, those of the decoder attend to neighbouring latents.
    - The value and output projections of a cross-attention start as an orthogonal map and its inverse, so that values
      are passed on.
    - The last weights of a self-attention layer's residual branches start smaller by the square root of the number of
      branches (GPT-2, Radford et al. 2019, section 2.3), so that the layers do not drown these values.
    """
    latents = parts.latents
    tables = [(table, parts.encoder_scale), (latents, parts.encoder_scale)]
    if outputs is not None and outputs is not inputs and outputs.table is not None:
        tables.append((outputs.table, parts.decoder_scale))
    num_shared = min(each.shape[1] for each, _ in tables)
    relative_length = max(1.0, table.shape[0] / REFERENCE_LENGTH)
    max_frequency = MAX_FREQUENCY * relative_length
    sharpness = math.sqrt(SHARPNESS**2 + SHARPNESS_GROWTH * math.log(relative_length))
    for each, scale in tables:
        each[:, :num_shared] = math.sqrt(2) * scale * sinusoids(each.shape[0], num_shared, max_frequency)

    for attention in parts.encoder_attentions:
        offsets = _centred_range(attention.num_heads) / attention.num_heads / latents.shape[0]
        _attend_at_offsets(attention, num_shared, offsets, max_frequency, sharpness)
        _pass_values_on(attention)
    for layer in parts.self_attention_layers:
        branch_outputs = (layer.attention.o_proj.weight, layer.mlp.output.weight)
        for weight in branch_outputs:
            weight.div_(math.sqrt(len(branch_outputs) * parts.num_self_attention_applications))
    decoder = parts.decoder_attention
    if outputs is not None and decoder is not None:
        offsets = _centred_range(decoder.num_heads) / latents.shape[0]
        _attend_at_offsets(decoder, num_shared, offsets, max_frequency, sharpness)
        _pass_values_on(decoder)


def _init_grid(parts: LocalInitParts, inputs: PositionLayout, outputs: PositionLayout | None) -> None:
    """Initialise attention on a grid, with learned or computed positions.

    - Learned positions start as sinusoids of their position in each dimension of the grid.
    - Each latent starts as the mean of the positions around its own point, scaled like a normal initialisation. The
      mean leaves out what changes within the latent's share of the grid, so that the latent finds all of its share
      alike, however fine the positions are.
    - The query and key projections of a cross-attention start as the same orthogonal map of these.
    - The value and output projections of a cross-attention start as an orthogonal map and its inverse.

    The decoder is initialised alike if the queries are the input itself.
    """
    latents, scale = parts.latents, parts.encoder_scale
    queries_are_inputs = outputs is inputs
    if (table := inputs.table) is not None:
        grid = inputs.positions.shape[:-1]
        table.copy_(math.sqrt(2) * scale * grid_sinusoids(grid, table.shape[1]).flatten(0, -2))
        updated = parts.input_adapter.position_layout()
        assert updated is not None
        inputs = updated
    positions = inputs.positions
    num_channels = positions.shape[-1]
    first = parts.input_adapter.num_input_channels - num_channels
    means, weights = local_means(positions, latents.shape[0])
    similarity = nn.functional.normalize(means) @ nn.functional.normalize(positions.flatten(0, -2)).T
    contrast = ((weights * similarity).sum(dim=1).mean() - similarity.mean()).clamp(min=MIN_CONTRAST)
    score = (MARGIN + math.log(latents.shape[0])) / contrast
    # Latents with fewer channels hold a projection of the positions, which approximately keeps their distances.
    num_shared = min(num_channels, latents.shape[1])
    projection = nn.init.orthogonal_(torch.empty(num_channels, num_shared))
    means = means @ projection
    latents[:, :num_shared] = scale * means / means.square().mean(dim=1, keepdim=True).sqrt()

    for attention in parts.encoder_attentions:
        position_map = _position_map(attention, num_channels, score)
        attention.k_proj.weight[:, first:] = position_map
        attention.q_proj.weight[:, :num_shared] = position_map @ projection
        _pass_values_on(attention)
    decoder = parts.decoder_attention
    if queries_are_inputs and decoder is not None:
        position_map = _position_map(decoder, num_channels, score)
        decoder.q_proj.weight[:, first:] = position_map
        decoder.k_proj.weight[:, :num_shared] = position_map @ projection
        _pass_values_on(decoder)


def frequencies(num_channels: int, max_frequency: float = MAX_FREQUENCY) -> Tensor:
    """Return the frequencies of sinusoids with ``num_channels`` channels: 1 to ``max_frequency``, in equal ratios."""
    return torch.logspace(0.0, math.log2(max_frequency), num_channels // 2, base=2.0)


def sinusoids(num_positions: int, num_channels: int, max_frequency: float = MAX_FREQUENCY) -> Tensor:
    """Compute sines and cosines of evenly spaced positions of a sequence.

    Args:
        num_positions: positions m; position i is at (i + 1/2) / m of the sequence.
        num_channels: channels c: first sines, then as many cosines. An odd last channel is zero.
        max_frequency: highest frequency in cycles per sequence.

    Returns:
        (m, c), with the frequencies of :func:`frequencies`.
    """
    positions = (torch.arange(num_positions) + 0.5) / num_positions
    phases = 2 * math.pi * positions[:, None] * frequencies(num_channels, max_frequency)
    waves = torch.cat([phases.sin(), phases.cos()], dim=1)
    return nn.functional.pad(waves, (0, num_channels - waves.shape[1]))


def grid_sinusoids(grid: Sequence[int], num_channels: int) -> Tensor:
    """Compute sinusoids of the positions of a grid, with an equal share of the channels for each dimension.

    Args:
        grid: lengths of the grid's dimensions. The highest frequency in each is its Nyquist frequency.
        num_channels: channels c; those that cannot be shared equally are zero.

    Returns:
        (*grid, c).
    """
    share = num_channels // len(grid)
    waves = torch.zeros(*grid, num_channels)
    for dimension, length in enumerate(grid):
        shape = [length if each == dimension else 1 for each in range(len(grid))]
        channels = slice(dimension * share, (dimension + 1) * share)
        waves[..., channels] = sinusoids(length, share, max_frequency=max(1.0, length / 2)).view(*shape, share)
    return waves


def spread_evenly(num_points: int, grid: Sequence[int]) -> list[tuple[float, ...]]:
    """Spread points about evenly on a grid: in rows at equal distances, each with about as many points.

    Args:
        num_points: number of points.
        grid: lengths of the grid's dimensions.

    Returns:
        Coordinates of the points, where position i of a dimension is at i + 1/2.
    """
    if not grid:
        return [()] * num_points
    length, rest = grid[0], grid[1:]
    # As many rows as there are points in a row of the same length.
    ideal_num_rows = (num_points * length ** len(rest) / math.prod(rest)) ** (1 / len(grid))
    num_rows = min(num_points, max(1, round(ideal_num_rows)))
    return [
        ((row + 0.5) / num_rows * length, *point)
        for row in range(num_rows)
        for point in spread_evenly(num_points // num_rows + (row < num_points % num_rows), rest)
    ]


def local_means(values: Tensor, num_means: int) -> tuple[Tensor, Tensor]:
    """Compute Gaussian-weighted means around evenly spread points of a grid.

    The standard deviation is half the distance between two points.

    Args:
        values: (*grid, channels), with m positions in the grid.
        num_means: number of means n.

    Returns:
        Means (n, channels) and weights (n, m), with positions in row-major order.
    """
    grid = values.shape[:-1]
    points = torch.tensor(spread_evenly(num_means, grid))
    positions = torch.cartesian_prod(*(torch.arange(length) + 0.5 for length in grid)).view(-1, len(grid))
    deviation = (math.prod(grid) / num_means) ** (1 / len(grid)) / 2
    weights = (-(torch.cdist(points, positions) / deviation).square() / 2).softmax(dim=1).to(values)
    return weights @ values.flatten(0, -2), weights


def _position_map(attention: MultiHeadAttention, num_channels: int, score: Tensor) -> Tensor:
    """Return an orthogonal map of normalised positions, scaled such that a position's score for itself is ``score``.

    Args:
        attention: attention whose query or key projection is initialised.
        num_channels: channels of the positions.
        score: score of a position for itself.

    Returns:
        (query and key channels, ``num_channels``).
    """
    num_qk_channels = attention.q_proj.out_features
    # Layer norms return a mean square of 1. Each head has its share of the sum, and divides by sqrt(k).
    unit_score = min(num_channels, num_qk_channels) / math.sqrt(num_qk_channels * attention.num_heads)
    return (score / unit_score).sqrt() * nn.init.orthogonal_(torch.empty(num_qk_channels, num_channels))


def _centred_range(num_heads: int) -> Tensor:
    """Return 0, 1, 2, ... for each head, shifted to a mean of 0."""
    return torch.arange(num_heads) - (num_heads - 1) / 2


def _attend_at_offsets(
    attention: MultiHeadAttention, num_shared: int, offsets: Tensor, max_frequency: float, sharpness: float
) -> None:
    """Initialise query and key projections such that each head attends to the position at its offset.

    Args:
        attention: attention to initialise.
        num_shared: first channels of query and key inputs that hold the sinusoids of their position.
        offsets: offsets of the heads (h), in sequence lengths.
        max_frequency: highest frequency of the sinusoids.
        sharpness: norm of the query and key projections.
    """
    q_proj, k_proj = attention.q_proj, attention.k_proj
    key_map = sharpness * nn.init.orthogonal_(torch.empty(q_proj.out_features, num_shared))
    k_proj.weight[:, :num_shared] = key_map
    # sin(x + d) and cos(x + d) are linear in sin(x) and cos(x), so that a shift can be part of the projection.
    angles = 2 * math.pi * offsets[:, None, None] * frequencies(num_shared, max_frequency)
    sin, cos = angles.sin(), angles.cos()
    num_periods = num_shared // 2
    sine_map, cosine_map, rest = key_map.unflatten(0, (attention.num_heads, -1)).split(
        [num_periods, num_periods, num_shared % 2], dim=-1
    )
    query_map = torch.cat([sine_map * cos - cosine_map * sin, sine_map * sin + cosine_map * cos, rest], dim=-1)
    q_proj.weight[:, :num_shared] = query_map.flatten(0, 1)


def _pass_values_on(attention: MultiHeadAttention) -> None:
    """Initialise value and output projections as an orthogonal map and its inverse."""
    v_proj, o_proj = attention.v_proj, attention.o_proj
    num_inputs, num_outputs = v_proj.in_features, o_proj.out_features
    value_map = nn.init.orthogonal_(torch.empty(v_proj.out_features, max(num_inputs, num_outputs)))
    v_proj.weight.copy_(value_map[:, :num_inputs])
    o_proj.weight.copy_(value_map[:, :num_outputs].T)
