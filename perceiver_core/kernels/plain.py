"""The attention formula with all scores at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_core.unmodified import are_plain_tensors


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Compute softmax(scale q k^T + bias) v.

    Args:
        q: queries (b or 1, h, n, k).
        k: keys (b, h, m, k).
        v: values (b, h, m, e).
        bias: added to the scores, (b, 1, 1, m), or None.
        dropout: dropout probability of the attention weights.
        scale: factor of the scores.

    Returns:
        The output (b, h, n, e) and the attention weights after dropout (b, h, n, m).
    """
    scores = torch.matmul(q * scale, k.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    if torch.is_grad_enabled() or not are_plain_tensors(scores):
        weights = scores.softmax(dim=-1)
    else:
        weights = torch.softmax(scores, dim=-1, out=scores)  # in-place, as nothing is kept for a backward pass
    if dropout > 0.0:
        weights = nn.functional.dropout(weights, dropout)
    return torch.matmul(weights, v), weights
