"""Multi-head attention with separate query/key and value widths (Perceiver IO, arXiv 2107.14795, appendix E)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from perceiver_core.dense import Linear


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pad_mask: Tensor | None = None,
    dropout: float = 0.0,
    return_attention: bool = False,
    scale: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention, softmax(q k^T / sqrt(d)) v, by the fastest exact path for these shapes.

    On CPU the fused kernel needs equal query and value widths and no dropout; without these, a call of it falls back
    to a path that is slower than the plain formula below. On other devices torch chooses among its own kernels.

    Args:
        q: queries (b or 1, heads, n, d); a batch of 1 is shared by all examples.
        k: keys (b, heads, m, d).
        v: values (b, heads, m, e).
        pad_mask: (b, m), True where the key is padding and gets no weight. A row that is padding throughout gives
            a finite, meaningless output.
        dropout: probability with which a weight is dropped.
        return_attention: also return the weights, which takes the plain path.
        scale: what q k^T is multiplied with. None: 1 / sqrt(d).

    Returns:
        The output (b, heads, n, e), and the weights (b, heads, n, m), after dropout, or None.
    """
    bias = None
    if pad_mask is not None:
        lowest = torch.finfo(q.dtype).min / 2  # half, so that a score added to it stays finite in half precision
        bias = torch.zeros_like(pad_mask, dtype=q.dtype).masked_fill_(pad_mask, lowest)[:, None, None, :]

    fused = q.device.type != "cpu" or (q.shape[-1] == v.shape[-1] and dropout == 0.0)
    if fused and not return_attention:
        q = q.expand(k.shape[0], -1, -1, -1)
        return scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale), None

    scores = torch.matmul(q * (q.shape[-1] ** -0.5 if scale is None else scale), k.transpose(-2, -1))
    if bias is not None:
        scores = scores + bias
    weights = scores.softmax(dim=-1) if torch.is_grad_enabled() else torch.softmax(scores, dim=-1, out=scores)
    if dropout > 0.0:
        weights = nn.functional.dropout(weights, dropout)
    return torch.matmul(weights, v), weights if return_attention else None


def absorbing_saves(n: int, m: int, c: int, num_qk_channels: int, num_v_channels: int) -> bool:
    """Whether one head needs fewer multiplications if it attends to the inputs themselves, not to keys and values.

    Args:
        n: number of queries.
        m: number of inputs.
        c: channels of the inputs.
        num_qk_channels: query and key channels.
        num_v_channels: value channels.
    """
    channels = num_qk_channels + num_v_channels
    projecting_inputs = m * c * channels + n * m * channels
    absorbing = n * c * channels + n * m * 2 * c
    return absorbing < projecting_inputs


class MultiHeadAttention(nn.Module):
    """Multi-head attention whose queries may come from another array than its keys and values.

    One head with few queries over many inputs makes no keys and values, where this takes fewer operations: the result
    is the same up to rounding.

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
        q = self.q_proj(x_q)
        dropout = self.dropout if self.training else 0.0
        n, (m, c) = x_q.shape[1], x_kv.shape[1:]
        if self.num_heads == 1 and absorbing_saves(n, m, c, self.k_proj.out_features, self.v_proj.out_features):
            output, weights = self._attend_to_inputs(q, x_kv, pad_mask, dropout, return_attention)
        else:
            k, v = self._split_heads(self.k_proj(x_kv)), self._split_heads(self.v_proj(x_kv))
            output, weights = attend(self._split_heads(q), k, v, pad_mask, dropout, return_attention)
            output = output.transpose(1, 2).flatten(2)
        return self.o_proj(output), weights

    def _attend_to_inputs(
        self, q: Tensor, x_kv: Tensor, pad_mask: Tensor | None, dropout: float, return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Attends with one head, the key projection absorbed into the queries, the value projection into the output.

        q (W_k x + b_k) = (q W_k) x + q b_k, where the softmax over all x does not see q b_k; and weights that sum to 1
        give the same output before as after W_v x + b_v.
        """
        # The key bias has no effect, but an optimizer or DDP expects a gradient of it: zero.
        q = (q + 0.0 * self.k_proj.bias) @ self.k_proj.weight
        x = x_kv.to(q.dtype)[:, None]  # once, where autocast would cast it as keys and as values
        scale = self.k_proj.out_features**-0.5
        output, weights = attend(q[:, None], x, x, pad_mask, dropout, return_attention or dropout > 0.0, scale)
        output = self.v_proj(output[:, 0])
        if weights is not None:  # after dropout they do not sum to 1
            output = output + (weights.sum(dim=-1).transpose(1, 2) - 1.0) * self.v_proj.bias
        return output, weights if return_attention else None

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
