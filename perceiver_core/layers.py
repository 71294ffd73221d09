"""Cross- and self-attention layers (Perceiver IO, arXiv 2107.14795, appendix E)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Literal

import torch
from torch import Tensor, nn

from perceiver_core.attention import MultiHeadAttention
from perceiver_core.config import CrossAttentionConfig, EncoderConfig
from perceiver_core.kernels.onednn import Linear
from perceiver_core.rotary import Rotary
from perceiver_core.sequence_cache import KeyValueCache

Activation = Literal["gelu", "squared_relu"]


class SquaredReLU(nn.Module):
    """Squared rectifier, max(x, 0)^2 (Primer, arXiv 2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": nn.GELU, "squared_relu": SquaredReLU}


class MLP(nn.Sequential):
    """Two linear layers with an activation function between them.

    Args:
        num_channels: input and output channels.
        widening_factor: hidden channels per input channel.
        bias: biases of both layers.
        activation: activation function.
    """

    hidden: Linear
    output: Linear

    def __init__(self, num_channels: int, widening_factor: int, bias: bool = True, activation: Activation = "gelu"):
        num_hidden_channels = widening_factor * num_channels
        super().__init__(
            OrderedDict(
                hidden=Linear(num_channels, num_hidden_channels, bias=bias),
                activation=ACTIVATIONS[activation](),
                output=Linear(num_hidden_channels, num_channels, bias=bias),
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
        residual_dropout: dropout probability of the outputs of the attention and the MLP.
        bias: biases of the MLP and of the projections of queries, keys and values. The output projection has one
            always.
        activation: activation function of the MLP.

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
        residual_dropout: float = 0.0,
        bias: bool = True,
        activation: Activation = "gelu",
    ):
        super().__init__()
        self.residual_dropout = nn.Dropout(residual_dropout)
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
            qkv_bias=bias,
        )
        self.mlp_norm = nn.LayerNorm(num_q_input_channels)
        self.mlp = MLP(num_q_input_channels, widening_factor, bias, activation)

    def forward(
        self,
        x_q: Tensor,
        x_kv: Tensor,
        pad_mask: Tensor | None = None,
        return_attention: bool = False,
        causal: bool = False,
        rotary: Rotary | None = None,
        cache: KeyValueCache | None = None,
        prefix_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``x_q`` to ``x_kv``.

        Args:
            x_q: query inputs (b or 1, n, d); a batch of 1 is shared by all examples.
            x_kv: key and value inputs (b, m, c).
            pad_mask: padding mask (b, m), True where ``x_kv`` is padding. Default: no padding.
            return_attention: also return the attention weights.
            causal: right-aligned causal attention (:func:`~perceiver_core.attend`).
            rotary: rotation of queries and keys. Default: none.
            cache: keys and values of earlier inputs (:class:`~perceiver_core.MultiHeadAttention`). Default: none.
            prefix_mask: (b or 1, m), True where ``kv_norm`` normalises ``x_kv``, and ``q_norm`` elsewhere. Default:
                ``kv_norm`` everywhere.

        Returns:
            The output (b, n, d), and the attention weights (b, h, n, m) or None.
        """
        normed_kv = self.kv_norm(x_kv)
        if prefix_mask is not None:
            normed_kv = torch.where(prefix_mask[..., None], normed_kv, self.q_norm(x_kv))
        x, weights = self.attention(self.q_norm(x_q), normed_kv, pad_mask, return_attention, causal, rotary, cache)
        x = self.residual_dropout(x)
        if self.attention_residual:
            x = x_q + x
        return x + self.residual_dropout(self.mlp(self.mlp_norm(x))), weights


class SelfAttentionLayer(nn.Module):
    """Pre-norm self-attention layer: ``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        num_heads: attention heads h.
        num_channels: input and output channels d.
        num_qk_channels: query and key channels of all heads. Default: ``num_channels``.
        num_v_channels: value channels of all heads. Default: ``num_qk_channels``.
        widening_factor: hidden channels of the MLP per channel.
        dropout: dropout probability of the attention weights.
        residual_dropout: dropout probability of the outputs of the attention and the MLP.
        bias: biases of all linear layers.
        activation: activation function of the MLP.

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
        residual_dropout: float = 0.0,
        bias: bool = True,
        activation: Activation = "gelu",
    ):
        super().__init__()
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.norm = nn.LayerNorm(num_channels)
        self.attention = MultiHeadAttention(
            num_heads,
            num_channels,
            num_channels,
            num_qk_channels=num_qk_channels,
            num_v_channels=num_v_channels,
            dropout=dropout,
            qkv_bias=bias,
            out_bias=bias,
        )
        self.mlp_norm = nn.LayerNorm(num_channels)
        self.mlp = MLP(num_channels, widening_factor, bias, activation)

    def forward(
        self,
        x: Tensor,
        return_attention: bool = False,
        pad_mask: Tensor | None = None,
        causal: bool = False,
        rotary: Rotary | None = None,
        cache: KeyValueCache | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend within ``x``.

        Args:
            x: inputs (b, n, d).
            return_attention: also return the attention weights.
            pad_mask: padding mask (b, n), True at padding. Default: no padding.
            causal: causal attention.
            rotary: rotation of queries and keys. Default: none.
            cache: keys and values of earlier inputs (:class:`~perceiver_core.MultiHeadAttention`). Default: none.

        Returns:
            The output (b, n, d), and the attention weights (b, h, n, n) or None.
        """
        normed = self.norm(x)
        attended, weights = self.attention(normed, normed, pad_mask, return_attention, causal, rotary, cache)
        x = x + self.residual_dropout(attended)
        return x + self.residual_dropout(self.mlp(self.mlp_norm(x))), weights


def cross_attention_layer(
    config: CrossAttentionConfig, num_q_input_channels: int, num_kv_input_channels: int, **options: Any
) -> CrossAttentionLayer:
    """Create the cross-attention layer of an encoder or decoder config.

    Args:
        config: encoder or decoder config.
        num_q_input_channels: query input channels.
        num_kv_input_channels: key and value input channels.
        options: arguments of :class:`CrossAttentionLayer` that the config does not have.

    Raises:
        ValueError: if channels cannot be split into heads.
    """
    return CrossAttentionLayer(
        config.num_cross_attention_heads,
        num_q_input_channels,
        num_kv_input_channels,
        num_qk_channels=config.num_cross_attention_qk_channels,
        num_v_channels=config.num_cross_attention_v_channels,
        widening_factor=config.cross_attention_widening_factor,
        attention_residual=config.cross_attention_residual,
        dropout=config.dropout,
        **options,
    )


def self_attention_layer(config: EncoderConfig, num_channels: int, **options: Any) -> SelfAttentionLayer:
    """Create a self-attention layer of an encoder config.

    Args:
        config: encoder config.
        num_channels: input and output channels.
        options: arguments of :class:`SelfAttentionLayer` that the config does not have.

    Raises:
        ValueError: if channels cannot be split into heads.
    """
    return SelfAttentionLayer(
        config.num_self_attention_heads,
        num_channels,
        num_qk_channels=config.num_self_attention_qk_channels,
        num_v_channels=config.num_self_attention_v_channels,
        widening_factor=config.self_attention_widening_factor,
        dropout=config.dropout,
        **options,
    )
