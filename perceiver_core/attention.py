"""Multi-head attention with separate query/key and value channels (Perceiver IO, arXiv 2107.14795, appendix E)."""

from __future__ import annotations

from torch import Tensor, nn

from perceiver_core.kernels.absorbed import ABSORBED_ATTENTION, Projections, choose_absorption
from perceiver_core.kernels.onednn import Linear
from perceiver_core.kernels.sdpa import attend
from perceiver_core.rotary import Rotary
from perceiver_core.sequence_cache import KeyValueCache


class MultiHeadAttention(nn.Module):
    """Multi-head attention: ``o_proj(softmax(q_proj(x_q) k_proj(x_kv)^T / sqrt(k)) v_proj(x_kv))`` for each head.

    :func:`~perceiver_core.kernels.sdpa.attend` chooses the kernel. With a single head, projections may be absorbed into
    the other side (:mod:`perceiver_core.kernels.absorbed`). All ways give the same results up to rounding.

    Args:
        num_heads: attention heads h; divides ``num_qk_channels`` and ``num_v_channels``.
        num_q_input_channels: channels of the query inputs.
        num_kv_input_channels: channels of the key and value inputs.
        num_qk_channels: query and key channels of all heads. Default: ``num_q_input_channels``.
        num_v_channels: value channels of all heads. Default: ``num_qk_channels``.
        num_output_channels: output channels. Default: ``num_q_input_channels``.
        dropout: dropout probability of the attention weights.
        qkv_bias: biases of the projections of queries, keys and values.
        out_bias: bias of the output projection.

    Raises:
        ValueError: if the channels cannot be split into heads.
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
        qkv_bias: bool = True,
        out_bias: bool = True,
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
        self.q_proj = Linear(num_q_input_channels, num_qk_channels, bias=qkv_bias)
        self.k_proj = Linear(num_kv_input_channels, num_qk_channels, bias=qkv_bias)
        self.v_proj = Linear(num_kv_input_channels, num_v_channels, bias=qkv_bias)
        self.o_proj = Linear(num_v_channels, num_output_channels, bias=out_bias)

    def forward(
        self,
        x_q: Tensor,
        x_kv: Tensor,
        pad_mask: Tensor | None = None,
        return_attention: bool = False,
        causal: bool = False,
        rotary: Rotary | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``x_q`` to ``x_kv``.

        Args:
            x_q: query inputs (b or 1, n, ``num_q_input_channels``); a batch of 1 is projected once for all examples.
            x_kv: key and value inputs (b, m, ``num_kv_input_channels``).
            pad_mask: padding mask (b, m), True at padding. Default: no padding.
            return_attention: also return the attention weights.
            causal: right-aligned causal attention (:func:`~perceiver_core.attend`).
            rotary: rotation of queries and keys, each at the last of its positions. Default: none.
            cache: keys and values of earlier inputs, which precede those of ``x_kv`` and to which these are appended.
                m counts both in ``pad_mask`` and in the attention weights. Default: none.

        Returns:
            The output (b, n, ``num_output_channels``), and the attention weights (b, h, n, m) or None.
        """
        dropout = self.dropout if self.training else 0.0
        projections = Projections(self.q_proj, self.k_proj, self.v_proj, self.o_proj)
        can_absorb = self.num_heads == 1 and rotary is None and cache is None
        absorption = choose_absorption(projections, x_q, x_kv) if can_absorb else "none"
        if absorption != "none":
            attend_absorbed = ABSORBED_ATTENTION[absorption]
            return attend_absorbed(projections, x_q, x_kv, pad_mask, dropout, return_attention, causal)

        q, k, v = (
            proj(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for proj, x in ((self.q_proj, x_q), (self.k_proj, x_kv), (self.v_proj, x_kv))
        )
        if rotary is not None:
            q, k = rotary.rotate(q), rotary.rotate(k)
        if cache is not None:
            k, v = cache.append(k, v)
        # A cache may return keys and values of a higher precision.
        output, weights = attend(q.to(k.dtype), k, v, pad_mask, dropout, return_attention, causal=causal)
        return self.o_proj(output.to(q.dtype).transpose(1, 2).flatten(2)), weights
