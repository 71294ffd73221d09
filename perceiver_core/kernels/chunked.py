"""The attention formula for a chunk of queries at a time.

At no time do more than a chunk's scores exist: the backward pass computes the attention weights again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from perceiver_core.kernels.onednn import matmul_transposed
from perceiver_core.kernels.plain import hidden_keys, plain_attention

SCORES_PER_CHUNK = {"cpu": 2**20, "other": 2**26}
"""Scores of a chunk: 4 MiB in single precision on a CPU, 256 MiB on a GPU.

In benchmarks/kernel_constants.py doubling it saves at most a tenth of the time on a CPU. Arbitrary on GPUs.
"""

MIN_QUERIES_PER_CHUNK = 64
"""Lower bound of the queries in a chunk, however many keys there are.

In benchmarks/kernel_constants.py half of it takes 1.2 to 1.4 times as long.
"""


def chunked_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float, causal: bool = False
) -> Tensor:
    """Compute softmax(scale q k^T + bias) v.

    Args:
        q: queries (b, h, n, k).
        k: keys (b, h, m, k).
        v: values (b, h, m, e).
        bias: added to the scores, (b, 1, 1, m), or None.
        dropout: dropout probability of the attention weights.
        scale: factor of the scores.
        causal: hide the keys of :func:`~perceiver_core.kernels.plain.hidden_keys` from the queries. The keys after the
            last query of a chunk are skipped.

    Returns:
        The output (b, h, n, e).
    """
    if dropout > 0.0:
        return _attention_with_dropout(q, k, v, bias, dropout, scale, causal)
    flat = (x.flatten(0, 1).contiguous() for x in (q, k, v))
    flat_bias = None if bias is None else bias.expand(-1, k.shape[1], -1, -1).flatten(0, 1)
    return _ChunkedAttention.apply(*flat, flat_bias, scale, causal).unflatten(0, k.shape[:2])


def _heads_per_chunk(k: Tensor) -> int:
    """Return how many heads of all examples are computed together: on a CPU one, on a GPU all."""
    return 1 if k.device.type == "cpu" else k.shape[:-2].numel()


def _queries_per_chunk(q: Tensor, k: Tensor) -> int:
    """Return how many queries of these heads make a chunk."""
    budget = SCORES_PER_CHUNK["cpu" if q.device.type == "cpu" else "other"]
    return max(MIN_QUERIES_PER_CHUNK, budget // max(1, _heads_per_chunk(k) * k.shape[-2]))


def _attention_with_dropout(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float, causal: bool
) -> Tensor:
    """Compute attention with dropout; the backward pass drops the same weights again."""

    def attend_chunk(rows: slice, keys: slice) -> Tensor:
        chunk_bias = None if bias is None else bias[..., keys]
        return plain_attention(q[..., rows, :], k[..., keys, :], v[..., keys, :], chunk_bias, dropout, scale, causal)[0]

    outputs = [checkpoint(attend_chunk, rows, keys, use_reentrant=False) for rows, keys in _row_chunks(q, k, causal)]
    return torch.cat(outputs, dim=-2)


class _ChunkedAttention(torch.autograd.Function):
    """Attention without dropout, with the heads of all examples in one dimension.

    q (b h, n, k), k (b h, m, k), v (b h, m, e), bias (b h, 1, m) or None.
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, causal: bool) -> Tensor:
        output = v.new_empty(*q.shape[:-1], v.shape[-1])
        for heads, rows, keys in _chunks(q, k, causal):
            weights = _weights(q[heads, rows], k[heads, keys], _select(bias, heads, keys), scale, causal)
            output[heads, rows] = matmul_transposed(weights, v[heads, keys].transpose(-2, -1))
        return output

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, float, bool], output: Tensor
    ) -> None:
        *tensors, ctx.scale, ctx.causal = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        for heads, rows, keys in _chunks(q, k, ctx.causal):
            weights = _weights(q[heads, rows], k[heads, keys], _select(bias, heads, keys), ctx.scale, ctx.causal)
            grad_v[heads, keys] += matmul_transposed(weights.transpose(-2, -1), grad[heads, rows].transpose(-2, -1))
            grad_weights = matmul_transposed(grad[heads, rows], v[heads, keys])
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            if grad_bias is not None:
                grad_bias[heads, :, keys] += grad_scores.sum(dim=-2, keepdim=True)
            grad_scores *= ctx.scale
            grad_q[heads, rows] = matmul_transposed(grad_scores, k[heads, keys].transpose(-2, -1))
            grad_k[heads, keys] += matmul_transposed(grad_scores.transpose(-2, -1), q[heads, rows].transpose(-2, -1))
        return grad_q, grad_k, grad_v, grad_bias, None, None


def _chunks(q: Tensor, k: Tensor, causal: bool) -> Iterator[tuple[slice, slice, slice]]:
    """Yield heads and queries that are computed together, and the keys that these see."""
    heads = _heads_per_chunk(k)
    for head in range(0, len(q), heads):
        for rows, keys in _row_chunks(q, k, causal):
            yield slice(head, head + heads), rows, keys


def _row_chunks(q: Tensor, k: Tensor, causal: bool) -> Iterator[tuple[slice, slice]]:
    """Yield queries that are computed together, and the keys that these see."""
    n, m = q.shape[-2], k.shape[-2]
    step = _queries_per_chunk(q, k)
    for start in range(0, n, step):
        stop = min(start + step, n)
        yield slice(start, stop), slice(0, m - n + stop if causal else m)


def _select(bias: Tensor | None, heads: slice, keys: slice) -> Tensor | None:
    return None if bias is None else bias[heads, :, keys]


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, scale: float, causal: bool) -> Tensor:
    """Compute the attention weights of a chunk."""
    scores = matmul_transposed(q * scale, k)
    if bias is not None:
        scores += bias
    if causal:
        n = scores.shape[-2]
        scores[..., -n:].masked_fill_(hidden_keys(n, n, scores.device), -math.inf)  # all see the keys before these
    return torch.softmax(scores, dim=-1, out=scores)
