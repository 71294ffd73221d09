"""Single-head attention that absorbs projections into the other side.

With many inputs and few queries, (q W_k) attends to the inputs themselves and W_v is applied to the result, so that no
keys and values are computed. With many queries and few inputs, W_q and W_o move to the inputs' side. With several heads
neither saves: each head would need all input channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from perceiver_core.kernels.onednn import Linear, linear
from perceiver_core.kernels.override import Absorption, forced_absorption
from perceiver_core.kernels.sdpa import attend
from perceiver_core.unmodified import is_unmodified_linear

DYNAMIC_DIM_SIZE = 2**20
"""Size assumed for dynamic dimensions when choosing an absorption under ``torch.export`` (arbitrary, but large)."""


class Projections(NamedTuple):
    """Projections of a single-head attention: linear layers, or modules that replace them."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    o: nn.Linear


def choose_absorption(projections: Projections, x_q: Tensor, x_kv: Tensor) -> Absorption:
    """Choose the absorption with the fewest multiplications.

    Projections that are not unmodified linear layers (:mod:`perceiver_core.unmodified`) are never absorbed: they are
    called as modules.

    Args:
        projections: projections of the attention.
        x_q: query inputs (b or 1, n, d).
        x_kv: key and value inputs (b, m, c).
    """
    if not _are_unmodified(projections):
        return "none"
    if (forced := forced_absorption()) is not None:
        return forced
    (b_q, n, d), (b, m, c) = ([_static_size(size) for size in x.shape] for x in (x_q, x_kv))
    qk, v, o = (proj.weight.shape[0] for proj in (projections.k, projections.v, projections.o))
    multiplications: dict[Absorption, int] = {
        "none": b_q * n * d * qk + b * (m * c * (qk + v) + n * m * (qk + v) + n * v * o),
        "inputs": b_q * n * qk * (d + c) + b * (2 * n * m * c + n * v * (c + o)),
        "queries": b * (m * qk * (c + d) + m * v * (c + o) + n * m * (d + o)),
    }
    chosen: Absorption = "none"
    for absorption, number in multiplications.items():  # torch.compile of torch 2.8 takes no min with a key
        if number < multiplications[chosen]:
            chosen = absorption
    return chosen


def attend_to_inputs(
    projections: Projections,
    x_q: Tensor,
    x_kv: Tensor,
    pad_mask: Tensor | None,
    dropout: float,
    return_attention: bool,
    causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute attention with the key projection absorbed into the queries and the value projection into the output.

    q (W_k x + b_k) = (q W_k) x + q b_k, and the softmax over all x does not depend on q b_k; attention weights that sum
    to 1 give the same output before and after W_v x + b_v.

    Args:
        projections: unmodified linear layers.
        x_q: query inputs (b or 1, n, d).
        x_kv: key and value inputs (b, m, c).
        pad_mask: padding mask (b, m) or None.
        dropout: dropout probability of the attention weights.
        return_attention: also return the attention weights.
        causal: right-aligned causal attention (:func:`~perceiver_core.attend`).

    Returns:
        The output (b, n, output channels), and the attention weights (b, 1, n, m) or None.
    """
    # The key bias has no effect, but an optimizer or DDP expects a gradient of it: zero.
    q = projections.q(x_q)
    scale = q.shape[-1] ** -0.5
    q = linear(q + 0.0 * projections.k.bias, projections.k.weight.t())
    x = x_kv.to(q.dtype)[:, None]  # once, where autocast would cast it as keys and as values
    # Weights of which some are dropped do not sum to 1: an input of ones finds their sum.
    values = nn.functional.pad(x, (0, 1), value=1.0) if dropout > 0.0 else x
    output, weights = attend(q[:, None], x, values, pad_mask, dropout, return_attention, scale, causal=causal)
    output = output[:, 0]
    projected = projections.v(output[..., : x.shape[-1]])
    if dropout > 0.0:
        projected = projected + (output[..., -1:] - 1.0) * projections.v.bias
    return projections.o(projected), weights


def attend_from_queries(
    projections: Projections,
    x_q: Tensor,
    x_kv: Tensor,
    pad_mask: Tensor | None,
    dropout: float,
    return_attention: bool,
    causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Compute attention with the query projection absorbed into the keys and the output projection into the values.

    (W_q y + b_q) k = y (k W_q) + b_q k, and W_o of the weighted sum of values is the weighted sum of W_o v.

    Arguments and results are those of :func:`attend_to_inputs`.
    """
    k = projections.k(x_kv)
    scale = k.shape[-1] ** -0.5
    key_bias = scale * (k @ projections.q.bias)
    v = linear(projections.v(x_kv), projections.o.weight)
    k = linear(k, projections.q.weight.t())
    x = x_q.to(k.dtype)
    output, weights = attend(
        x[:, None], k[:, None], v[:, None], pad_mask, dropout, return_attention, scale, key_bias, causal
    )
    return output[:, 0] + projections.o.bias.to(output.dtype), weights


ABSORBED_ATTENTION = {"inputs": attend_to_inputs, "queries": attend_from_queries}
"""Attention functions by absorption."""


def _static_size(size: int | torch.SymInt) -> int:
    """Return a size, or :data:`DYNAMIC_DIM_SIZE` for a dynamic dimension."""
    return size if isinstance(size, int) else DYNAMIC_DIM_SIZE


def _are_unmodified(projections: Projections) -> bool:
    """Return whether the weights and biases of all projections may be read instead of calling the layers."""
    return all(is_unmodified_linear(proj, Linear, nn.Linear) and proj.bias is not None for proj in projections)
