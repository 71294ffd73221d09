"""Cross- and self-attention layers (Perceiver IO, arXiv 2107.14795, appendix E)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from perceiver_core.attention import MultiHeadAttention
from perceiver_core.config import CrossAttentionConfig, DecoderConfig, EncoderConfig, LatentsDecoderConfig
from perceiver_core.context import select_positions
from perceiver_core.kernels.onednn import Linear
from perceiver_core.mlp import MLP, Activation
from perceiver_core.norm import Norm, create_norm
from perceiver_core.rotary import Rotary
from perceiver_core.sequence_cache import KeyValueCache


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
        norm: kind of the norms.
        mlp: apply the MLP after the attention.
        attend_to_queries: attend to ``x``, with the norm of queries, after ``y`` (Perceiver Resampler, arXiv
            2204.14198, section 3.1). Both must have the same number of channels.

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
        norm: Norm = "layer",
        mlp: bool = True,
        attend_to_queries: bool = False,
    ):
        super().__init__()
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.attention_residual = attention_residual
        self.attend_to_queries = attend_to_queries
        self.q_norm = create_norm(num_q_input_channels, norm)
        self.kv_norm = create_norm(num_kv_input_channels, norm)
        self.attention = MultiHeadAttention(
            num_heads,
            num_q_input_channels,
            num_kv_input_channels,
            num_qk_channels=num_qk_channels,
            num_v_channels=num_v_channels,
            dropout=dropout,
            qkv_bias=bias,
        )
        self.mlp_norm = create_norm(num_q_input_channels, norm) if mlp else None
        self.mlp = MLP(num_q_input_channels, widening_factor, bias, activation) if mlp else None

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
            The output (b, n, d), and the attention weights (b, h, n, m), or (b, h, n, m + n) with
            ``attend_to_queries``, or None.
        """
        normed_kv = self.kv_norm(x_kv)
        if prefix_mask is not None:
            normed_kv = torch.where(prefix_mask[..., None], normed_kv, self.q_norm(x_kv))
        normed_q = self.q_norm(x_q)
        if self.attend_to_queries:
            # Not len(normed_kv), which would fix the batch size of exported models.
            normed_kv = torch.cat([normed_kv, normed_q.expand(normed_kv.shape[0], -1, -1)], dim=1)
            pad_mask = None if pad_mask is None else functional.pad(pad_mask, (0, x_q.shape[1]), value=False)
        x, weights = self.attention(normed_q, normed_kv, pad_mask, return_attention, causal, rotary, cache)
        x = self.residual_dropout(x)
        if self.attention_residual:
            x = x_q + x
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self.residual_dropout(self.mlp(self.mlp_norm(x)))
        return x, weights


class MeanPoolingLayer(nn.Module):
    """Mean pooling instead of cross-attention: ``x + projection(norm(mean(y)))``, then ``x + mlp(norm(x))``.

    Args:
        num_q_input_channels: channels f of the query inputs and of the output.
        num_kv_input_channels: channels d of the array to pool.
        widening_factor: hidden channels of the MLP per channel.
        residual_dropout: dropout probability of the outputs of the projection and the MLP.
        activation: activation function of the MLP.
        norm: kind of the norms.
        mlp: apply the MLP after the pooling.
    """

    def __init__(
        self,
        num_q_input_channels: int,
        num_kv_input_channels: int,
        widening_factor: int = 1,
        residual_dropout: float = 0.0,
        activation: Activation = "gelu",
        norm: Norm = "layer",
        mlp: bool = True,
    ):
        super().__init__()
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.norm = create_norm(num_kv_input_channels, norm)
        self.projection = Linear(num_kv_input_channels, num_q_input_channels)
        self.mlp_norm = create_norm(num_q_input_channels, norm) if mlp else None
        self.mlp = MLP(num_q_input_channels, widening_factor, activation=activation) if mlp else None

    def forward(
        self, x_q: Tensor, x_kv: Tensor, pad_mask: None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Add the pooled ``x_kv`` to ``x_q``.

        Args:
            x_q: query inputs (b or 1, o, f).
            x_kv: array to pool (b, n, d).
            pad_mask: not used.
            return_attention: also return the weights of the mean.

        Returns:
            The output (b, o, f), and the weights (b, 1, o, n), each 1 / n, or None.
        """
        x = x_q + self.residual_dropout(self.projection(self.norm(x_kv.mean(1, keepdim=True))))
        if self.mlp is not None and self.mlp_norm is not None:
            x = x + self.residual_dropout(self.mlp(self.mlp_norm(x)))
        b, n = x_kv.shape[:2]
        return x, x_kv.new_full((b, 1, x.shape[1], n), 1 / n) if return_attention else None


class LatentSelectionLayer(nn.Module):
    """Selection of latents instead of cross-attention: the queries are indices of latents."""

    def forward(
        self, x_q: Tensor, x_kv: Tensor, pad_mask: None = None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Select rows of ``x_kv``.

        Args:
            x_q: indices (b or 1, o, 1), integers.
            x_kv: latents (b, n, d).
            pad_mask: not used.
            return_attention: also return the weights of the selection.

        Returns:
            The output (b, o, d), and the weights (b, 1, o, n), 1 for each selected latent and 0 for others, or None.
        """
        indices = x_q[..., 0]
        x = select_positions(x_kv, indices)
        if not return_attention:
            return x, None
        weights = functional.one_hot(indices, x_kv.shape[1]).to(x)[:, None]
        return x, weights.expand(len(x), -1, -1, -1)


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
        norm: kind of the norms.

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
        norm: Norm = "layer",
    ):
        super().__init__()
        self.residual_dropout = nn.Dropout(residual_dropout)
        self.norm = create_norm(num_channels, norm)
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
        self.mlp_norm = create_norm(num_channels, norm)
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
        options: arguments of :class:`CrossAttentionLayer` that the config lacks or that replace its values.

    Raises:
        ValueError: if channels cannot be split into heads.
    """
    arguments = _layer_arguments(config) | {
        "num_qk_channels": config.num_cross_attention_qk_channels,
        "num_v_channels": config.num_cross_attention_v_channels,
        "widening_factor": config.cross_attention_widening_factor,
        "attention_residual": config.cross_attention_residual,
        "dropout": config.dropout,
    }
    return CrossAttentionLayer(
        config.num_cross_attention_heads, num_q_input_channels, num_kv_input_channels, **arguments | options
    )


def decoder_layer(
    config: DecoderConfig, num_query_channels: int, num_latent_channels: int
) -> CrossAttentionLayer | MeanPoolingLayer | LatentSelectionLayer:
    """Create the layer of a decoder: cross-attention, mean pooling or selection of latents.

    Args:
        config: decoder config.
        num_query_channels: output query channels f.
        num_latent_channels: latent channels d.

    Raises:
        ValueError: if channels cannot be split into heads.
    """
    if isinstance(config, LatentsDecoderConfig):
        return LatentSelectionLayer()
    if config.pooling == "attention":
        return cross_attention_layer(config, num_query_channels, num_latent_channels, mlp=config.mlp)
    return MeanPoolingLayer(
        num_query_channels,
        num_latent_channels,
        widening_factor=config.cross_attention_widening_factor,
        mlp=config.mlp,
        **_layer_arguments(config),
    )


def self_attention_layer(config: EncoderConfig, num_channels: int, **options: Any) -> SelfAttentionLayer:
    """Create a self-attention layer of an encoder config.

    Args:
        config: encoder config.
        num_channels: input and output channels.
        options: arguments of :class:`SelfAttentionLayer` that the config lacks or that replace its values.

    Raises:
        ValueError: if channels cannot be split into heads.
    """
    arguments = _layer_arguments(config) | {
        "num_qk_channels": config.num_self_attention_qk_channels,
        "num_v_channels": config.num_self_attention_v_channels,
        "widening_factor": config.self_attention_widening_factor,
        "dropout": config.dropout,
    }
    return SelfAttentionLayer(config.num_self_attention_heads, num_channels, **arguments | options)


def _layer_arguments(config: CrossAttentionConfig) -> dict[str, Any]:
    """Return the arguments of a config that all kinds of layers take."""
    return {"residual_dropout": config.residual_dropout, "activation": config.activation, "norm": config.norm}
