"""Perceiver IO (arXiv 2107.14795): encoder, decoder, and the model of both and two adapters."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from perceiver_core.activations import ActivationPolicy
from perceiver_core.adapters import AdaptedInput, Batch, InputAdapter, OutputAdapter
from perceiver_core.config import DecoderConfig, EncoderConfig, PerceiverConfig
from perceiver_core.context import NO_CONTEXT, Context, context_between
from perceiver_core.init import freeze_parts, init_normal
from perceiver_core.layers import (
    CrossAttentionLayer,
    SelfAttentionLayer,
    cross_attention_layer,
    decoder_layer,
    self_attention_layer,
)
from perceiver_core.local_init import LocalInitParts, init_local
from perceiver_core.model import Model
from perceiver_core.unmodified import has_hooks

M = TypeVar("M", bound=nn.Module)

MAX_QUERIES_PER_CHUNK = 2**15
"""Output queries decoded at once without gradients.

Arbitrary; the benchmark ``optical-flow`` compares it with decoding all queries at once.
"""


class Attentions(NamedTuple):
    """Attention weights of one forward pass.

    Attributes:
        encoder_cross: from the latents to the input (b, h, n, m), for each application of a cross-attention layer.
            With ``attend_to_latents``, the weights of the latents are left out, so sums over m are less than 1.
        encoder_self: among the latents (b, h, n, n), for each application of a self-attention layer.
        decoder: from the output queries to the latents (b, h, o, n).
    """

    encoder_cross: list[Tensor]
    encoder_self: list[Tensor]
    decoder: Tensor


class PerceiverEncoder(nn.Module):
    """Encoder: cross-attention from learned latents to the input array, and self-attention among the latents.

    Repeated layers are listed once for each set of weights, in the order of their first application. Later applications
    reuse the last entry.

    Args:
        config: encoder config.
        num_input_channels: input channels c.
        num_latents: latents n.
        num_latent_channels: latent channels d.
        activations: policy for activations kept for the backward pass. Default: keep all.

    Raises:
        ValueError: if channels cannot be split into heads, or if ``attend_to_latents`` is set and the numbers of input
            and latent channels differ.
    """

    def __init__(
        self,
        config: EncoderConfig,
        num_input_channels: int,
        num_latents: int,
        num_latent_channels: int,
        activations: ActivationPolicy | None = None,
    ):
        super().__init__()
        if config.attend_to_latents and num_input_channels != num_latent_channels:
            raise ValueError(
                f"attend_to_latents: num_latent_channels={num_latent_channels} must equal the {num_input_channels} "
                "channels of the adapted input"
            )
        self.num_cross_attention_layers = config.num_cross_attention_layers
        self.num_self_attention_blocks = config.num_self_attention_blocks
        self.activations = activations or ActivationPolicy()

        def weight_sets(applications: int, first_shared: bool) -> range:
            if not config.share_repeated_layers:
                return range(applications)
            return range(1 if first_shared or applications == 1 else 2)

        self.latents = nn.Parameter(torch.empty(num_latents, num_latent_channels))
        self.cross_attention_layers = nn.ModuleList(
            cross_attention_layer(
                config, num_latent_channels, num_input_channels, attend_to_queries=config.attend_to_latents
            )
            for _ in weight_sets(self.num_cross_attention_layers, config.first_cross_attention_layer_shared)
        )
        self.self_attention_blocks = nn.ModuleList(
            nn.ModuleList(
                self_attention_layer(config, num_latent_channels)
                for _ in range(config.num_self_attention_layers_per_block)
            )
            for _ in weight_sets(self.num_self_attention_blocks, config.first_self_attention_block_shared)
        )

    def forward(self, adapted: AdaptedInput, return_attention: bool = False) -> Any:
        """Encode an adapted input.

        Args:
            adapted: input array (b, m, c) and its padding mask.
            return_attention: also return the attention weights.

        Returns:
            The latents (b, n, d). With ``return_attention`` a tuple of these, the weights of the cross-attentions and
            those of the self-attentions.
        """
        cross_weights, self_weights = [], []
        # The latents stay a batch of one until they meet the input: their norm and projection are the same for all.
        x = self.latents[None]
        for i in range(self.num_self_attention_blocks):
            if i < self.num_cross_attention_layers:
                layer = self.cross_attention_layers[min(i, len(self.cross_attention_layers) - 1)]
                x, weights = self.activations(layer, x, adapted.x, adapted.pad_mask, return_attention)
                cross_weights.append(None if weights is None else weights[..., : adapted.x.shape[1]])
            block = self.self_attention_blocks[min(i, len(self.self_attention_blocks) - 1)]
            for layer in block:  # type: ignore[attr-defined]
                x, weights = self.activations(layer, x, return_attention)
                self_weights.append(weights)
        return (x, cross_weights, self_weights) if return_attention else x


class PerceiverDecoder(nn.Module):
    """Decoder: cross-attention from output queries to the latents, the mean of the latents, or the latents themselves.

    Args:
        config: decoder config.
        num_query_channels: output query channels f.
        num_latent_channels: latent channels d.
        activations: policy for activations kept for the backward pass. Default: keep all.

    Raises:
        ValueError: if channels cannot be split into heads.
    """

    def __init__(
        self,
        config: DecoderConfig,
        num_query_channels: int,
        num_latent_channels: int,
        activations: ActivationPolicy | None = None,
    ):
        super().__init__()
        self.activations = activations or ActivationPolicy()
        self.cross_attention_layer = decoder_layer(config, num_query_channels, num_latent_channels)

    def forward(self, queries: Tensor, latents: Tensor, return_attention: bool = False) -> Any:
        """Decode output queries.

        Args:
            queries: output queries (b or 1, o, f).
            latents: latents (b, n, d).
            return_attention: also return the attention weights.

        Returns:
            The decoded queries (b, o, f). With ``return_attention`` a tuple of these and the attention weights
            (b, h, o, n).
        """
        x, weights = self.activations(self.cross_attention_layer, queries, latents, None, return_attention)
        return (x, weights) if return_attention else x


class PerceiverIO(Model):
    """Perceiver IO: input adapter, encoder, decoder and output adapter.

    Args:
        config: model config. ``config.params`` is not read here: the registry loads weights.
        input_adapter: input adapter.
        output_adapter: output adapter.

    Raises:
        ValueError: if ``config.init`` is "local" and the input adapter has no position layout, or if channels cannot be
            split into heads.
    """

    config: PerceiverConfig

    def __init__(self, config: PerceiverConfig, input_adapter: InputAdapter, output_adapter: OutputAdapter):
        super().__init__()
        self.config = config
        activations = ActivationPolicy(config.activation_checkpointing, config.activation_offloading)
        self.input_adapter = input_adapter
        self.encoder = PerceiverEncoder(
            config.encoder,
            input_adapter.num_input_channels,
            config.num_latents,
            config.num_latent_channels,
            activations,
        )
        self.decoder = PerceiverDecoder(
            config.decoder, output_adapter.query_provider.num_query_channels, config.num_latent_channels, activations
        )
        self.output_adapter = output_adapter

        init_normal(self.encoder, config.encoder.init_scale)
        init_normal(self.decoder, config.decoder.init_scale)
        if config.init == "local":
            init_local(self._local_init_parts())

        freeze_parts(config, input_adapter, self.encoder, self.decoder, output_adapter)

    def _local_init_parts(self) -> LocalInitParts:
        """Return the parts that local initialisation writes to."""
        encoder = self.config.encoder
        layer = self.decoder.cross_attention_layer
        cross_attention_layers = _modules_of_type(self.encoder.cross_attention_layers, CrossAttentionLayer)
        return LocalInitParts(
            input_adapter=self.input_adapter,
            query_provider=self.output_adapter.query_provider,
            latents=self.encoder.latents,
            encoder_attentions=[layer.attention for layer in cross_attention_layers],
            decoder_attention=layer.attention if isinstance(layer, CrossAttentionLayer) else None,
            self_attention_layers=_modules_of_type(self.encoder.self_attention_blocks, SelfAttentionLayer),
            num_self_attention_applications=(
                encoder.num_self_attention_blocks * encoder.num_self_attention_layers_per_block
            ),
            encoder_scale=encoder.init_scale,
            decoder_scale=self.config.decoder.init_scale,
        )

    def forward(self, batch: Batch, positions: Tensor | None = None, return_attention: bool = False) -> Any:
        """Compute the output at all or some output positions.

        Args:
            batch: batch that the input adapter reads.
            positions: output positions to decode. Integers (b, p): p positions of each example. Booleans (b, o): any
                number of positions of each example. Default: all.
            return_attention: also return the attention weights.

        Returns:
            The output adapter's output: with leading dimensions (b, o), or (b, p) for integer ``positions``; for a
            boolean mask with one leading dimension, as if the whole output were indexed by the mask. With
            ``return_attention`` a tuple of this and :class:`Attentions`. For a boolean mask, those of the decoder
            include padding of examples with fewer True to the length of the one with most.

        Raises:
            ValueError: if a boolean mask has another shape than (b, o).
        """
        adapted, queries, context, chosen = self._prepare(batch, positions)
        if return_attention:
            latents, encoder_cross, encoder_self = self.encoder(adapted, return_attention=True)
            decoded, decoder_cross = self.decoder(queries, latents, return_attention=True)
            output = self._output(decoded, context, chosen)
            return output, Attentions(encoder_cross, encoder_self, decoder_cross)
        if chosen is not None:
            return self._output(self.compute(adapted, queries), context, chosen)
        return self.decode(queries, self.encoder(adapted), context)

    def encode(self, batch: Batch) -> Tensor:
        """Compute the latents (b, n, d), the encoder's output, for a batch that the input adapter reads."""
        latents: Tensor = self.encoder(self.input_adapter(batch))
        return latents

    def compute(self, adapted: AdaptedInput, queries: Tensor) -> Tensor:
        """Compute the decoder's output (b, o, f) for an adapted input and output queries (b or 1, o, f)."""
        return self.decoder(queries, self.encoder(adapted))

    def decode(self, queries: Tensor, latents: Tensor, context: Context = NO_CONTEXT) -> Any:
        """Decode output queries and apply the output adapter.

        Without gradients, :data:`MAX_QUERIES_PER_CHUNK` queries are decoded at a time, so that the memory of
        activations does not grow with their number. Hooks on the decoder and the output adapter get all queries.

        Args:
            queries: output queries (b or 1, o, f).
            latents: latents (b, n, d).
            context: :attr:`AdaptedInput.context` at the positions of the queries. Default: none.

        Returns:
            The output adapter's output.
        """
        at_once = torch.is_grad_enabled() or torch.compiler.is_compiling() or queries.shape[1] <= MAX_QUERIES_PER_CHUNK
        if at_once or any(map(has_hooks, (*self.decoder.modules(), *self.output_adapter.modules()))):
            return self._output(self.decoder(queries, latents), context)
        outputs = []
        for start in range(0, queries.shape[1], MAX_QUERIES_PER_CHUNK):
            stop = start + MAX_QUERIES_PER_CHUNK
            decoded = self.decoder(queries[:, start:stop], latents)
            outputs.append(self._output(decoded, context_between(context, start, stop)))
        return torch.cat(outputs, dim=1)


def _modules_of_type(parent: nn.Module, module_type: type[M]) -> list[M]:
    return [module for module in parent.modules() if isinstance(module, module_type)]
