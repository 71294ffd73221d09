"""Cross- and self-attention layers (Perceiver IO, arXiv 2107.14795, appendix E)."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from perceiver_core.attention import MultiHeadAttention
from perceiver_core.kernels.onednn import Linear


class MLP(nn.Sequential):
    """Two linear layers with a GELU between them.

    Args:
        num_channels: input and output channels.
        widening_factor: hidden channels per input channel.
    """

    hidden: Linear
    output: Linear

    def __init__(self, num_channels: int, widening_factor: int):
        num_hidden_channels = widening_factor * num_channels
        super().__init__(
            OrderedDict(
                hidden=Linear(num_channels, num_hidden_channels),
                activation=nn.GELU(),
                output=Linear(num_hidden_channels, num_channels),
            )
        )


class CrossAttentionLayer(nn.Module):
    """Pre-norm cross-attention layer: ``x + attention(norm(x), norm(y))``, then ``x + mlp(norm(x))``.

    Args:
        num_heads: attention heads h.
        num_q_input_channels: channels d of the query inputs and of the output.
        num_kv_input_channels: channels c of the key and value inputs.
        num_qk_channels: query and key channels of all heads. Default: ``num_q_input_channels``.
        num_v_channels: value channels of all heads. Default: ``num_qk_channels``.
        widening_factor: hidden channels of the MLP per channel.
        attention_residual: add a residual connection around the attention.
        dropout: dropout probability of the attention weights.

    Raises:
        ValueError: if channels cannot be split into heads.
    """

    def __init__(
        self,
        num_heads: int,
        num_q_input_channels: int,
        num_kv_input_channels: int,
        num_qk_channels: int | None = None,
        num_v_channels: int | None = None,
        widening_factor: int = 1,
        attention_residual: bool = True,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.attention_residual = attention_residual
        self.q_norm = nn.LayerNorm(num_q_input_channels)
        self.kv_norm = nn.LayerNorm(num_kv_input_channels)
        self.attention = MultiHeadAttention(
            num_heads,
            num_q_input_channels,
            num_kv_input_channels,
            num_qk_channels=num_qk_channels,
            num_v_channels=num_v_channels,
            dropout=dropout,
        )
        self.mlp_norm = nn.LayerNorm(num_q_input_channels)
        self.mlp = MLP(num_q_input_channels, widening_factor)

    def forward(
        self, x_q: Tensor, x_kv: Tensor, pad_mask: Tensor | None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``x_q`` to ``x_kv``.

        Args:
            x_q: query inputs (b or 1, n, d); a batch of 1 is shared by all examples.
            x_kv: key and value inputs (b, m, c).
            pad_mask: padding mask (b, m), True where ``x_kv`` is padding. Default: no padding.
            return_attention: also return the attention weights.

        Returns:
            The output (b, n, d), and the attention weights (b, h, n, m) or None.
        """
        x, weights = self.attention(self.q_norm(x_q), self.kv_norm(x_kv), pad_mask, return_attention)
        if self.attention_residual:
            x = x_q + x
        return x + self.mlp(self.mlp_norm(x)), weights


class SelfAttentionLayer(nn.Module):
    """Pre-norm self-attention layer: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        num_heads: attention heads h.
        num_channels: input and output channels d.
        num_qk_channels: query and key channels of all heads. Default: ``num_channels``.
        num_v_channels: value channels of all heads. Default: ``num_qk_channels``.
        widening_factor: hidden channels of the MLP per channel.
        dropout: dropout probability of the attention weights.

    Raises:
        ValueError: if channels cannot be split into heads.
    """

    def __init__(
        self,
        num_heads: int,
        num_channels: int,
        num_qk_channels: int | None = None,
        num_v_channels: int | None = None,
        widening_factor: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(num_channels)
        self.attention = MultiHeadAttention(
            num_heads,
            num_channels,
            num_channels,
            num_qk_channels=num_qk_channels,
            num_v_channels=num_v_channels,
            dropout=dropout,
        )
        self.mlp_norm = nn.LayerNorm(num_channels)
        self.mlp = MLP(num_channels, widening_factor)

    def forward(self, x: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Attend within ``x``.

        Args:
            x: inputs (b, n, d).
            return_attention: also return the attention weights.

        Returns:
            The output (b, n, d), and the attention weights (b, h, n, n) or None.
        """
        normed = self.norm(x)
        attended, weights = self.attention(normed, normed, None, return_attention)
        x = x + attended
        return x + self.mlp(self.mlp_norm(x)), weights
