"""The attention formula with all scores at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from perceiver_core.unmodified import are_plain_tensors


def hidden_keys(num_queries: int, num_keys: int, device: torch.device) -> Tensor:
    """Return the right-aligned causal mask (n, m): True where key j > i + m - n, which query i must not see.

    Args:
        num_queries: queries n, at most m.
        num_keys: keys m, of which the last n are at the positions of the queries.
        device: device of the mask.
    """
    return torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).triu(num_keys - num_queries + 1)


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Compute softmax(scale q k^T + bias) v.

    Args:
        q: queries (b or 1, h, n, k).
        k: keys (b, h, m, k).
        v: values (b, h, m, e).
        bias: added to the scores, (b, 1, 1, m), or None.
        dropout: dropout probability of the attention weights.
        scale: factor of the scores.
        causal: hide the keys of :func:`hidden_keys` from the queries.

    Returns:
        The output (b, h, n, e) and the attention weights after dropout (b, h, n, m).
    """
    scores = torch.matmul(q * scale, k.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    if causal:
        scores = scores.masked_fill(hidden_keys(q.shape[-2], k.shape[-2], scores.device), -math.inf)
    if torch.is_grad_enabled() or not are_plain_tensors(scores):
        weights = scores.softmax(dim=-1)
    else:
        weights = torch.softmax(scores, dim=-1, out=scores)  # in-place, as nothing is kept for a backward pass
    if dropout > 0.0:
        weights = nn.functional.dropout(weights, dropout)
    return torch.matmul(weights, v), weights
