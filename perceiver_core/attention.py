"""Multi-head attention with separate query/key and value widths (Perceiver IO, arXiv 2107.14795, appendix E).

There is one formula, and there are several ways to compute it: :func:`attend` chooses among kernels, and
:class:`MultiHeadAttention` decides which projections to make. All give the same up to rounding; :func:`forced` makes
one of them be taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from perceiver_core.kernels.onednn import MIN_PRODUCTS, Linear, linear, prefers_onednn, products
from perceiver_core.unmodified import are_plain_tensors, is_unmodified_linear

Path = Literal["fused", "plain", "chunked"]
"""How the softmax over the keys is computed: by torch's fused kernel; by the formula, with all scores at once; or by
the formula for some queries at a time."""

Absorption = Literal["none", "inputs", "queries"]
"""Which projections are made (one head): queries, keys and values; none of the inputs; or none of the queries."""

MAX_SCORES = 2**24
"""Scores that may exist at once, and be kept for the backward pass: 64 MiB in single precision."""

CHUNK_SCORES = {"cpu": 2**20, "other": 2**26}
"""Scores of one chunk: few enough for a CPU's cache, many enough to keep a GPU busy."""

MIN_CHUNK = 64
"""Queries of a chunk at least, however many keys there are: with fewer, products lose speed."""

LEFT_OPEN = 2**20
"""Stands for a size that an exported model leaves open where the choice of a way must not depend on it."""

_forced: dict[str, str] = {}


@contextlib.contextmanager
def forced(path: Path | None = None, absorption: Absorption | None = None) -> Iterator[None]:
    """Makes all attention take one way, for tests and measurements. What returns the weights stays plain.

    Args:
        path: how the softmax is computed. None: the usual choice.
        absorption: which projections are made where there is one head and they are unmodified. None: the usual choice.

    Raises:
        ValueError: if there is no such way.
    """
    chosen = {"path": (path, get_args(Path)), "absorption": (absorption, get_args(Absorption))}
    for name, (value, known) in chosen.items():
        if value is not None and value not in known:
            raise ValueError(f"{name}={value!r}: must be one of {', '.join(known)}")
    before = dict(_forced)
    _forced.update({name: value for name, (value, _) in chosen.items() if value is not None})
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pad_mask: Tensor | None = None,
    dropout: float = 0.0,
    return_attention: bool = False,
    scale: float | None = None,
    key_bias: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention, softmax(q k^T / sqrt(d)) v, by the fastest exact path for these shapes.

    Args:
        q: queries (b or 1, heads, n, d); a batch of 1 is shared by all examples.
        k: keys (b, heads, m, d).
        v: values (b, heads, m, e).
        pad_mask: (b, m), True where the key is padding and gets no weight. A row that is padding throughout gives
            a finite, meaningless output.
        dropout: probability with which a weight is dropped.
        return_attention: also return the weights, which takes the plain path.
        scale: what q k^T is multiplied with. None: 1 / sqrt(d).
        key_bias: (b, m), what is added to all scores of a key, after scaling.

    Returns:
        The output (b, heads, n, e), and the weights (b, heads, n, m), after dropout, or None.
    """
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    bias = _bias(q, pad_mask, key_bias)
    path = "plain" if return_attention else _forced.get("path") or choose_path(q, k, v, bias, dropout)
    if path == "plain":
        output, weights = _plain(q, k, v, bias, dropout, scale)
        return output, weights if return_attention else None
    q = q.expand(k.shape[0], -1, -1, -1)
    if path == "fused":
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale), None
    if dropout > 0.0:
        return _chunked_with_dropout(q, k, v, bias, dropout, scale), None
    flat = (x.flatten(0, 1).contiguous() for x in (q, k, v))
    flat_bias = None if bias is None else bias.expand(-1, k.shape[1], -1, -1).flatten(0, 1)
    return _ChunkedAttention.apply(*flat, flat_bias, scale).unflatten(0, k.shape[:2]), None


def choose_path(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, dropout: float = 0.0) -> Path:
    """The fastest path for these shapes on this device; one that holds all scores at once only if these are few.

    On CPU the fused kernel needs equal query and value widths, no dropout, and a bias without gradient: without these,
    a call of it falls back to one that is slower than the plain formula. And where oneDNN multiplies faster
    (:mod:`perceiver_core.kernels.onednn`), so do chunks of the formula that use it.

    Args:
        q: queries (b or 1, heads, n, d).
        k: keys (b, heads, m, d).
        v: values (b, heads, m, e).
        bias: what is added to the scores.
        dropout: probability with which a weight is dropped.
    """
    if torch.compiler.is_compiling():
        return "fused"
    (b, heads, m, d), n, e = k.shape, q.shape[-2], v.shape[-1]
    few = b * heads * n * m <= MAX_SCORES
    if not are_plain_tensors(q, k, v):
        return "plain" if few else "fused"  # the chunked path has no rules for subclasses and transforms of tensors
    if q.device.type != "cpu":
        return "fused" if few or _has_kernel(q, k, v, bias, dropout) else "chunked"
    if dropout == 0.0 and prefers_onednn(q, k, v) and n * m * min(d, e) >= MIN_PRODUCTS // 2:
        return "chunked"
    if d == e and dropout == 0.0 and not (bias is not None and bias.requires_grad):
        return "fused"
    return "plain" if few else "chunked"


def _has_kernel(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float) -> bool:
    """Whether a GPU has a kernel for this that does not hold all scores at once."""
    if q.device.type != "cuda":
        return True
    cuda = torch.backends.cuda
    params = cuda.SDPAParams(q.expand(k.shape[0], -1, -1, -1), k, v, bias, dropout, False, False)
    return (
        cuda.can_use_flash_attention(params)
        or cuda.can_use_efficient_attention(params)
        or cuda.can_use_cudnn_attention(params)
    )


def _bias(q: Tensor, pad_mask: Tensor | None, key_bias: Tensor | None) -> Tensor | None:
    """What is added to the scores, (b, 1, 1, m)."""
    bias = None if key_bias is None else key_bias.to(q.dtype)
    if pad_mask is not None:
        lowest = torch.finfo(q.dtype).min / 2  # half, so that a score added to it stays finite in half precision
        padding = torch.zeros_like(pad_mask, dtype=q.dtype).masked_fill_(pad_mask, lowest)
        bias = padding if bias is None else bias.masked_fill(pad_mask, lowest)
    return None if bias is None else bias[:, None, None, :]


def _plain(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float) -> tuple[Tensor, Tensor]:
    scores = torch.matmul(q * scale, k.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    if torch.is_grad_enabled() or not are_plain_tensors(scores):
        weights = scores.softmax(dim=-1)
    else:
        weights = torch.softmax(scores, dim=-1, out=scores)
    if dropout > 0.0:
        weights = nn.functional.dropout(weights, dropout)
    return torch.matmul(weights, v), weights


def _heads(k: Tensor) -> int:
    """How many heads of all examples are computed together: on a CPU one, on a GPU all."""
    return 1 if k.device.type == "cpu" else k.shape[:-2].numel()


def _rows(q: Tensor, k: Tensor) -> int:
    """How many queries of these heads make a chunk."""
    budget = CHUNK_SCORES["cpu" if q.device.type == "cpu" else "other"]
    return max(MIN_CHUNK, budget // max(1, _heads(k) * k.shape[-2]))


def _chunked_with_dropout(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float, scale: float) -> Tensor:
    """The plain formula for some queries at a time; the backward pass computes it again and drops the same weights."""
    outputs = [
        checkpoint(lambda part: _plain(part, k, v, bias, dropout, scale)[0], part, use_reentrant=False)
        for part in q.split(_rows(q, k), dim=-2)
    ]
    return torch.cat(outputs, dim=-2)


class _ChunkedAttention(torch.autograd.Function):
    """The formula for some queries at a time; the backward pass computes the weights again.

    q (h, n, d), k (h, m, d), v (h, m, e) and bias (h, 1, m) or None, with the heads of all examples in one dimension.
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        output = v.new_empty(*q.shape[:-1], v.shape[-1])
        for heads, rows in _chunks(q, k):
            weights = _weights(q[heads, rows], k[heads], _part(bias, heads), scale)
            output[heads, rows] = products(weights, v[heads].transpose(-2, -1))
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, Tensor | None, float], output: Tensor) -> None:
        *tensors, ctx.scale = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        grad_bias = torch.zeros_like(bias) if ctx.needs_input_grad[3] else None
        for heads, rows in _chunks(q, k):
            weights = _weights(q[heads, rows], k[heads], _part(bias, heads), ctx.scale)
            grad_v[heads] += products(weights.transpose(-2, -1), grad[heads, rows].transpose(-2, -1))
            grad_weights = products(grad[heads, rows], v[heads])
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            if grad_bias is not None:
                grad_bias[heads] += grad_scores.sum(dim=-2, keepdim=True)
            grad_scores *= ctx.scale
            grad_q[heads, rows] = products(grad_scores, k[heads].transpose(-2, -1))
            grad_k[heads] += products(grad_scores.transpose(-2, -1), q[heads, rows].transpose(-2, -1))
        return grad_q, grad_k, grad_v, grad_bias, None


def _chunks(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice]]:
    """Heads and rows of the queries that are computed together."""
    num_heads, n = q.shape[:2]
    heads, rows = _heads(k), _rows(q, k)
    for head in range(0, num_heads, heads):
        for row in range(0, n, rows):
            yield slice(head, head + heads), slice(row, row + rows)


def _part(bias: Tensor | None, heads: slice) -> Tensor | None:
    return None if bias is None else bias[heads]


def _weights(q: Tensor, k: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    scores = products(q * scale, k)
    if bias is not None:
        scores += bias
    return torch.softmax(scores, dim=-1, out=scores)


def _known(size: int | torch.SymInt) -> int:
    """A size as a number: one that an export leaves open (``torch.export``) counts as a large one."""
    return size if isinstance(size, int) else LEFT_OPEN


def choose_absorption(attention: MultiHeadAttention, x_q: Tensor, x_kv: Tensor) -> Absorption:
    """Which projections take the fewest multiplications.

    With many inputs and few queries, (q W_k) attends to the inputs themselves and W_v is applied to what it finds, so
    that nothing of the inputs' number is made. With many queries and few inputs, W_q and W_o move to the inputs' side.
    With several heads neither saves: each head has a projection of its own, to all channels. Projections that are
    anything but unmodified linear layers (:mod:`perceiver_core.unmodified`) are called as the modules that they are.

    Args:
        attention: the attention.
        x_q: (b or 1, n, c), what the queries are made of.
        x_kv: (b, m, d), what the keys and values are made of.
    """
    if attention.num_heads > 1 or not _has_unmodified_projections(attention):
        return "none"
    if "absorption" in _forced:
        return _forced["absorption"]  # type: ignore[return-value]
    (b_q, n, f), (b, m, c) = ([_known(size) for size in x.shape] for x in (x_q, x_kv))
    qk, v, o = (proj.weight.shape[0] for proj in (attention.k_proj, attention.v_proj, attention.o_proj))
    multiplications: dict[Absorption, int] = {
        "none": b_q * n * f * qk + b * (m * c * (qk + v) + n * m * (qk + v) + n * v * o),
        "inputs": b_q * n * qk * (f + c) + b * (2 * n * m * c + n * v * (c + o)),
        "queries": b * (m * qk * (c + f) + m * v * (c + o) + n * m * (f + o)),
    }
    return min(multiplications, key=lambda absorption: multiplications[absorption])


def _has_unmodified_projections(attention: MultiHeadAttention) -> bool:
    """Return whether weights and biases of all projections may be read, instead of calling the layers."""
    projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
    return all(is_unmodified_linear(proj, Linear, nn.Linear) and proj.bias is not None for proj in projections)


class MultiHeadAttention(nn.Module):
    """Multi-head attention whose queries may come from another array than its keys and values.

    With one head, projections that take fewer operations on the other side are made there (:func:`choose_absorption`):
    the result is the same up to rounding.

    Args:
        num_heads: number of heads; divides ``num_qk_channels`` and ``num_v_channels``.
        num_q_input_channels: channels of the array that the queries are made of.
        num_kv_input_channels: channels of the array that the keys and values are made of.
        num_qk_channels: query and key channels of all heads together. None: ``num_q_input_channels``.
        num_v_channels: value channels of all heads together. None: ``num_qk_channels``.
        num_output_channels: channels of the output. None: ``num_q_input_channels``.
        dropout: probability with which an attention weight is dropped in training.

    Raises:
        ValueError: if the channels cannot be split into the heads.
    """

    def __init__(
        self,
        num_heads: int,
        num_q_input_channels: int,
        num_kv_input_channels: int,
        num_qk_channels: int | None = None,
        num_v_channels: int | None = None,
        num_output_channels: int | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        num_qk_channels = num_qk_channels or num_q_input_channels
        num_v_channels = num_v_channels or num_qk_channels
        num_output_channels = num_output_channels or num_q_input_channels
        for name, channels in (("num_qk_channels", num_qk_channels), ("num_v_channels", num_v_channels)):
            if channels % num_heads != 0:
                raise ValueError(f"{name}={channels}: must be divisible by num_heads={num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.q_proj = Linear(num_q_input_channels, num_qk_channels)
        self.k_proj = Linear(num_kv_input_channels, num_qk_channels)
        self.v_proj = Linear(num_kv_input_channels, num_v_channels)
        self.o_proj = Linear(num_v_channels, num_output_channels)

    def forward(
        self, x_q: Tensor, x_kv: Tensor, pad_mask: Tensor | None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attends from ``x_q`` to ``x_kv``.

        Args:
            x_q: (b or 1, n, ``num_q_input_channels``); a batch of 1 is projected once for all examples.
            x_kv: (b, m, ``num_kv_input_channels``).
            pad_mask: (b, m), True at padding.
            return_attention: also return the attention weights.

        Returns:
            The output (b, n, ``num_output_channels``), and the weights (b, heads, n, m) or None.
        """
        dropout = self.dropout if self.training else 0.0
        absorption = choose_absorption(self, x_q, x_kv)
        if absorption == "inputs":
            return self._attend_to_inputs(x_q, x_kv, pad_mask, dropout, return_attention)
        if absorption == "queries":
            return self._attend_from_queries(x_q, x_kv, pad_mask, dropout, return_attention)
        q, k, v = (
            proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for proj, x in ((self.q_proj, x_q), (self.k_proj, x_kv), (self.v_proj, x_kv))
        )
        output, weights = attend(q, k, v, pad_mask, dropout, return_attention)
        return self.o_proj(output.transpose(1, 2).flatten(2)), weights

    def _attend_to_inputs(
        self, x_q: Tensor, x_kv: Tensor, pad_mask: Tensor | None, dropout: float, return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attends with one head, the key projection absorbed into the queries, the value projection into the output.

        q (W_k x + b_k) = (q W_k) x + q b_k, where the softmax over all x does not see q b_k; and weights that sum to 1
        give the same output before as after W_v x + b_v.
        """
        # The key bias has no effect, but an optimizer or DDP expects a gradient of it: zero.
        q = self.q_proj(x_q)
        scale = q.shape[-1] ** -0.5
        q = linear(q + 0.0 * self.k_proj.bias, self.k_proj.weight.t())
        x = x_kv.to(q.dtype)[:, None]  # once, where autocast would cast it as keys and as values
        # Weights of which some are dropped do not sum to 1: an input of ones finds their sum.
        values = nn.functional.pad(x, (0, 1), value=1.0) if dropout > 0.0 else x
        output, weights = attend(q[:, None], x, values, pad_mask, dropout, return_attention, scale)
        found = self.v_proj(output[:, 0, :, : x.shape[-1]])
        if dropout > 0.0:
            found = found + (output[:, 0, :, -1:] - 1.0) * self.v_proj.bias
        return self.o_proj(found), weights

    def _attend_from_queries(
        self, x_q: Tensor, x_kv: Tensor, pad_mask: Tensor | None, dropout: float, return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attends with one head, the query projection absorbed into the keys, the output projection into the values.

        (W_q y + b_q) k = y (k W_q) + b_q k, and W_o of the weighted sum of values is the weighted sum of W_o v.
        """
        k = self.k_proj(x_kv)
        scale = k.shape[-1] ** -0.5
        key_bias = scale * (k @ self.q_proj.bias)
        v = linear(self.v_proj(x_kv), self.o_proj.weight)
        k = linear(k, self.q_proj.weight.t())
        x = x_q.to(k.dtype)
        output, weights = attend(
            x[:, None], k[:, None], v[:, None], pad_mask, dropout, return_attention, scale, key_bias
        )
        return output[:, 0] + self.o_proj.bias.to(output.dtype), weights
