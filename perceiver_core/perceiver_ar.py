"""Perceiver AR (arXiv 2202.07765): a causal model whose latents are the last inputs, with an exact cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from perceiver_core.activations import ActivationPolicy
from perceiver_core.adapters import Batch, InputAdapter, OutputAdapter
from perceiver_core.config import (
    D,
    E,
    ModelConfig,
    require,
    require_choice,
    require_divisible_latents,
    require_positive,
)
from perceiver_core.context import select_positions
from perceiver_core.init import freeze_parts, init_normal
from perceiver_core.layers import cross_attention_layer, self_attention_layer
from perceiver_core.mlp import Activation
from perceiver_core.model import Model
from perceiver_core.rotary import Rotary
from perceiver_core.sequence_cache import SequenceCache


@dataclass
class PerceiverARConfig(ModelConfig[E, D]):
    """Config of :class:`PerceiverAR`.

    The encoder's config gives heads, channels and widening factors of the attention layers, and their number
    (``num_self_attention_layers_per_block``). Default options are those of the ``perceiver-io`` package 0.11, unless
    another source is named; default sizes are arbitrary. Weights start from a normal distribution of the encoder's
    ``init_scale``, and those of the last layer of each residual branch smaller, by 1 / sqrt(number of branches), as in
    GPT-2.

    Args:
        encoder: encoder config.
        decoder: decoder config.
        num_latents: largest number of latents n, which are the last inputs.
        num_latent_channels: latent channels d, equal to the input channels c.
        activation_checkpointing: as in :class:`~perceiver_core.PerceiverConfig`.
        activation_offloading: as in :class:`~perceiver_core.PerceiverConfig`.
        params: as in :class:`~perceiver_core.PerceiverConfig`.
        compile: as in :class:`~perceiver_core.PerceiverConfig`.
        max_seq_len: inputs m that the model sees at once. Longer sequences can be continued: the window slides.
        refill_stride: steps in which latents and window advance along a sequence (:func:`grid`), 1 to ``num_latents``.
            Larger steps cost less time, and use ``num_latents - refill_stride + 1`` latents or more. Default: half of
            ``num_latents``.
        prefix_dropout: share of the inputs before the latents that is left out in training, at least 0 and less
            than 1.
        residual_dropout: dropout probability of the outputs of attentions and MLPs.
        rotary_fraction: share of a head's channels that is rotated by its position, from the first one (0.25 to 0.5
            in the authors' code).
        num_rotary_layers: self-attention layers with rotary positions, from the first one. The cross-attention has
            them always. Default: all, as in the authors' code.
        rotary_base: base of the wavelengths of the rotation.
        absolute_positions: also add learned positions within the window to the inputs.
        separate_prefix_norm: normalise the keys and values of latents as their queries, and only those of inputs
            before them with a norm of their own. Default: one norm for all keys and values, as in the authors' code.
        biases: biases of all linear layers, as in the authors' code. Default: only of the cross-attention's output.
        activation: activation function of the MLPs; the authors' is "squared_relu".
        output_norm: normalise the latents before the output adapter.

    Raises:
        ValueError: if a value is out of range, if channels cannot be split into heads, or if a field of the encoder or
            decoder that the architecture does not use differs from its default.
    """

    encoder_fields = (
        "num_cross_attention_heads",
        "num_cross_attention_qk_channels",
        "num_cross_attention_v_channels",
        "cross_attention_widening_factor",
        "cross_attention_residual",
        "num_self_attention_heads",
        "num_self_attention_qk_channels",
        "num_self_attention_v_channels",
        "num_self_attention_layers_per_block",
        "self_attention_widening_factor",
        "dropout",
        "params",
        "freeze",
    )
    decoder_fields = ("freeze",)

    num_latents: int = 256
    num_latent_channels: int = 512
    activation_checkpointing: bool = False
    activation_offloading: bool = False
    params: str | None = None
    compile: bool = False
    max_seq_len: int = 2048
    refill_stride: int | None = None
    prefix_dropout: float = 0.5
    residual_dropout: float = 0.0
    rotary_fraction: float = 0.5
    num_rotary_layers: int | None = None
    rotary_base: float = 10_000.0
    absolute_positions: bool = False
    separate_prefix_norm: bool = False
    biases: bool = False
    activation: Activation = "gelu"
    output_norm: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_latents", "num_latent_channels", "max_seq_len", "refill_stride")
        require_positive(self.encoder, "num_self_attention_layers_per_block")
        require_divisible_latents(self)
        n = self.num_latents
        require(n <= self.max_seq_len, self, "num_latents", f"must not exceed max_seq_len={self.max_seq_len}")
        require(self.stride <= n, self, "refill_stride", f"must not exceed num_latents={n}")
        for field in ("prefix_dropout", "residual_dropout"):
            require(0.0 <= getattr(self, field) < 1.0, self, field, "must be at least 0 and less than 1")
        require(0.0 <= self.rotary_fraction <= 1.0, self, "rotary_fraction", "must be at least 0 and at most 1")
        require((self.num_rotary_layers or 0) >= 0, self, "num_rotary_layers", "must be at least 0")
        require(self.rotary_base > 0.0, self, "rotary_base", "must be greater than 0")
        require_choice(self, "activation", Activation)

    @property
    def stride(self) -> int:
        """Steps in which latents and window advance: ``refill_stride``, or its default."""
        return self.refill_stride or max(1, self.num_latents // 2)


def grid(num_inputs: Tensor, size: int, stride: int) -> Tensor:
    """Return the first of the last inputs that are used, stride * ceil(max(0, num_inputs - size) / stride).

    It advances in steps, and depends on the number of inputs alone: however a sequence is fed to the model, its
    outputs are the same. Between ``size - stride + 1`` and ``size`` inputs are used, or all of fewer.

    Args:
        num_inputs: numbers of inputs, of any shape.
        size: largest number of inputs to use.
        stride: length of a step.
    """
    return (num_inputs - size + stride - 1).clamp(min=0) // stride * stride


class CausalEncoder(nn.Module):
    """Causal cross-attention from the last inputs to all of them, and causal self-attention among the results.

    Layers have the names of those of :class:`~perceiver_core.PerceiverEncoder`.

    Args:
        config: model config.

    Raises:
        ValueError: if channels cannot be split into heads.
    """

    def __init__(self, config: PerceiverARConfig):
        super().__init__()
        self.config = config
        self.activations = ActivationPolicy(config.activation_checkpointing, config.activation_offloading)
        encoder, num_channels = config.encoder, config.num_latent_channels
        options: dict[str, Any] = {
            "residual_dropout": config.residual_dropout,
            "bias": config.biases,
            "activation": config.activation,
        }
        self.position_embedding = nn.Embedding(config.max_seq_len, num_channels) if config.absolute_positions else None
        self.cross_attention_layers = nn.ModuleList(
            [cross_attention_layer(encoder, num_channels, num_channels, **options)]
        )
        layers = nn.ModuleList(
            self_attention_layer(encoder, num_channels, **options)
            for _ in range(encoder.num_self_attention_layers_per_block)
        )
        self.self_attention_blocks = nn.ModuleList([layers])

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw all weights from a normal distribution, a narrower one for the last layer of each residual branch."""
        init_normal(self, self.config.encoder.init_scale)
        layers = self._layers()
        for layer in layers:
            for projection in (layer.attention.o_proj, layer.mlp.output):
                projection.weight /= math.sqrt(2 * len(layers))

    def add_positions(self, x: Tensor, positions: Tensor) -> Tensor:
        """Add the learned positions, if there are any.

        Args:
            x: inputs (b, m, c).
            positions: positions within the window (b or 1, m); those of padding may be negative.
        """
        return x if self.position_embedding is None else x + self.position_embedding(positions.clamp(min=0))

    def forward(
        self,
        x_q: Tensor,
        x_kv: Tensor,
        columns: Tensor,
        key_mask: Tensor | None = None,
        latent_mask: Tensor | None = None,
        prefix_mask: Tensor | None = None,
        cache: SequenceCache | None = None,
    ) -> Tensor:
        """Compute the latents of inputs.

        Args:
            x_q: inputs of the latents (b, n, c).
            x_kv: inputs to attend to (b, m, c), of which the last ones are those of the latents.
            columns: positions in the sequence (at least m and n), or (b, at least m and n); the last ones are those of
                ``x_q`` and ``x_kv``.
            key_mask: padding mask of the inputs (b, m), cached ones included. Default: no padding.
            latent_mask: padding mask of the latents (b, n), cached ones included. Default: no padding.
            prefix_mask: (b or 1, m), True at inputs before the latents, if these have a norm of their own.
            cache: cache of earlier inputs, to which these are appended. Default: no earlier inputs.

        Returns:
            The latents (b, n, d).
        """
        encoder, num_rotary_layers = self.config.encoder, self.config.num_rotary_layers
        rotary = self._rotary(columns, encoder.num_cross_attention_qk_channels, encoder.num_cross_attention_heads, x_q)
        cross_attention_layer, *self_attention_layers = self._layers()
        x, _ = self.activations(
            cross_attention_layer,
            x_q,
            x_kv,
            key_mask,
            causal=True,
            rotary=rotary,
            cache=None if cache is None else cache.keys,
            prefix_mask=prefix_mask,
        )
        columns = columns[..., -x.shape[1] :]
        rotary = self._rotary(columns, encoder.num_self_attention_qk_channels, encoder.num_self_attention_heads, x_q)
        for index, layer in enumerate(self_attention_layers):
            x, _ = self.activations(
                layer,
                x,
                pad_mask=latent_mask,
                causal=True,
                rotary=rotary if num_rotary_layers is None or index < num_rotary_layers else None,
                cache=None if cache is None else cache.latents[index],
            )
        return x

    def _layers(self) -> list[Any]:
        """Return the cross-attention layer and the self-attention layers."""
        return [*self.cross_attention_layers, *cast(nn.ModuleList, self.self_attention_blocks[0])]

    def _rotary(self, columns: Tensor, num_qk_channels: int | None, num_heads: int, x: Tensor) -> Rotary | None:
        head_channels = (num_qk_channels or self.config.num_latent_channels) // num_heads
        num_channels = int(self.config.rotary_fraction * head_channels) // 2 * 2
        return Rotary.at(columns, num_channels, self.config.rotary_base, x.dtype) if num_channels else None


class PerceiverAR(Model):
    """Perceiver AR: input adapter, causal encoder and output adapter.

    The input adapter must embed each input by itself (``is_causal``), without its position. The output for an input
    depends on it and those before it: it predicts the next one.

    Args:
        config: model config. ``config.params`` is not read here: the registry loads weights.
        input_adapter: input adapter.
        output_adapter: output adapter. Its query provider must be without parameters, such as
            :class:`~perceiver_core.InputQueryProvider`: the latents take the part of decoded queries.

    Raises:
        ValueError: if an adapter does not fit, or if channels cannot be split into heads.
    """

    config: PerceiverARConfig

    def __init__(self, config: PerceiverARConfig, input_adapter: InputAdapter, output_adapter: OutputAdapter):
        super().__init__()
        _check_adapters(config, input_adapter, output_adapter)
        self.config = config
        self.input_adapter = input_adapter
        self.encoder = CausalEncoder(config)
        self.output_norm = nn.LayerNorm(config.num_latent_channels) if config.output_norm else nn.Identity()
        self.output_adapter = output_adapter
        self.encoder.init_weights()
        freeze_parts(config, input_adapter, self.encoder, self.output_norm, output_adapter)

    def forward(  # type: ignore[override]
        self,
        batch: Batch,
        all_outputs: bool = False,
        generator: torch.Generator | None = None,
        prefix_length: int | None = None,
    ) -> Any:
        """Compute the outputs for the last inputs, or for all of them.

        Args:
            batch: batch that the input adapter reads, of at most ``max_seq_len`` inputs.
            all_outputs: compute the outputs for all inputs. Latents are then consecutive blocks of ``num_latents``
                inputs, each of which attends to all inputs before it and its own.
            generator: random generator of prefix dropout. Default: torch's.
            prefix_length: inputs before those with latents, for fewer outputs. Default: all but the last
                ``num_latents`` inputs, and none with ``all_outputs``.

        Returns:
            The output adapter's output (b, o, ...) for the last o inputs: ``num_latents`` or all of fewer, or all.

        Raises:
            ValueError: if there are more than ``max_seq_len`` inputs, or the prefix leaves none or more than
                ``num_latents``.
        """
        x, pad_mask, _ = self.input_adapter(batch)
        x = self._with_positions(x, pad_mask)
        m, n = x.shape[1], self.config.num_latents
        if torch.compiler.is_exporting() and prefix_length is None and not all_outputs:
            return self._outputs_of_any_length(x, pad_mask)
        first = max(0, m - n) if prefix_length is None else prefix_length
        if not max(0, m - n) <= first < m:
            raise ValueError(f"prefix_length={first}: must leave 1 to {n} of {m} inputs")
        if not all_outputs:
            return self._predict([self._block(x, pad_mask, first, generator)])
        blocks = [
            self._block(x[:, : start + n], None if pad_mask is None else pad_mask[:, : start + n], start, generator)
            for start in range(0, m, n)
        ]
        return self._predict(blocks)

    def encode(self, batch: Batch) -> Tensor:
        """Compute the latents of the last inputs of each example, which the output adapter reads.

        The latents do not depend on the side or the amount of padding.

        Args:
            batch: batch that the input adapter reads, of at most ``max_seq_len`` inputs m.

        Returns:
            Latents (b, n, d) of the last ``num_latents`` inputs, or of all inputs if there are fewer. Shorter examples
            are padded on the left (:meth:`latent_pad_mask`).

        Raises:
            ValueError: if there are more than ``max_seq_len`` inputs.
        """
        x, pad_mask = self._padded_left(batch)
        x = self._with_positions(x, pad_mask)
        latents: Tensor = self.output_norm(self._block(x, pad_mask, self._first_latent(x), None))
        return latents

    def latent_pad_mask(self, batch: Batch) -> Tensor | None:
        """Return the padding mask (b, n) of the latents of :meth:`encode`; None without padding."""
        x, pad_mask = self._padded_left(batch)
        return None if pad_mask is None else pad_mask[:, self._first_latent(x) :]

    def _padded_left(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Return the input array and its padding mask, with padding after the last input moved to the front."""
        x, pad_mask, _ = self.input_adapter(batch)
        if pad_mask is None:
            return x, None
        columns = torch.arange(x.shape[1], device=x.device)
        columns = (columns - _count_leading(pad_mask.flip(1))[:, None]) % x.shape[1]
        return select_positions(x, columns), select_positions(pad_mask, columns)

    def _first_latent(self, x: Tensor) -> int:
        return max(0, x.shape[1] - self.config.num_latents)

    def _with_positions(self, x: Tensor, pad_mask: Tensor | None) -> Tensor:
        """Add learned position embeddings to inputs (b, m, c), counting from the first input that is not padding.

        Raises:
            ValueError: if there are more than ``max_seq_len`` inputs.
        """
        m = x.shape[1]
        if m > self.config.max_seq_len:
            raise ValueError(f"input of length {m} is longer than max_seq_len={self.config.max_seq_len}")
        columns = torch.arange(m, device=x.device)[None]
        return self.encoder.add_positions(
            x, columns if pad_mask is None else columns - _count_leading(pad_mask)[:, None]
        )

    def _block(self, x: Tensor, pad_mask: Tensor | None, start: int, generator: torch.Generator | None) -> Tensor:
        """Compute the latents (b, n, d) of the inputs (b, m, c) from ``start`` on; zeros at padding."""
        columns = torch.arange(x.shape[1], device=x.device)
        latent_mask = None if pad_mask is None else pad_mask[:, start:]
        x_q, x_kv, num_prefix = x[:, start:], x, start
        if self.training and (num_dropped := int(self.config.prefix_dropout * start)):
            num_prefix = start - num_dropped
            kept = draw_positions(len(x), start, num_prefix, generator, x.device)
            columns = torch.cat([kept, columns[start:].expand(len(x), -1)], dim=1)
            x_kv = select_positions(x, columns)
            pad_mask = None if pad_mask is None else select_positions(pad_mask, columns)
        prefix_mask = None
        if self.config.separate_prefix_norm:
            prefix_mask = (torch.arange(x_kv.shape[1], device=x.device) < num_prefix)[None]
        latents = self.encoder(x_q, x_kv, columns, pad_mask, latent_mask, prefix_mask)
        return latents if latent_mask is None else latents.masked_fill(latent_mask[..., None], 0.0)

    def _outputs_of_any_length(self, x: Tensor, pad_mask: Tensor | None) -> Any:
        """Compute the outputs for the last inputs, in exported programs for lengths below and above ``num_latents``.

        The inputs are padded on the left, so that there are always ``num_latents`` latents.
        """
        m, n = x.shape[1], self.config.num_latents
        pad_mask = torch.zeros_like(x[..., 0], dtype=torch.bool) if pad_mask is None else pad_mask
        x = nn.functional.pad(x, (0, 0, n, 0))
        latents = self._block(x, nn.functional.pad(pad_mask, (n, 0), value=True), m, None)
        last = torch.arange(torch.sym_max(0, n - m), n, device=x.device)
        return tree_map(lambda output: output.index_select(1, last), self._predict([latents]))

    def _predict(self, latents: list[Tensor]) -> Any:
        return self.output_adapter(self.output_norm(torch.cat(latents, dim=1)))

    def create_cache(self) -> SequenceCache:
        """Create an empty cache for :meth:`extend`."""
        config = self.config
        return SequenceCache(config.max_seq_len, config.num_latents, config.encoder.num_self_attention_layers_per_block)

    @torch.no_grad()
    def extend(self, batch: Batch, cache: SequenceCache, num_outputs: int = 1) -> Any:
        """Append inputs to those of a cache, and compute the outputs for the last of them.

        After t inputs, the output sees the inputs from ``grid(t, max_seq_len, stride)`` on, and its latents begin at
        ``grid(t, num_latents, stride)``. It does not depend on how the inputs were divided among calls, on other
        examples or on their padding. A step costs one latent, and ``num_latents`` latents where the grid advances.

        Args:
            batch: batch that the input adapter reads, of any number of inputs: tensors (b, k, ...). Examples of fewer
                inputs than others are padded on the left, in the first calls.
            cache: the cache, modified in-place.
            num_outputs: outputs to compute, at most k.

        Returns:
            The output adapter's output (b, ``num_outputs``, ...); without meaning at padding.

        Raises:
            ValueError: if padding follows an input, or ``num_outputs`` is out of range.
        """
        if self._append(batch, cache):
            raise ValueError("batch: padding follows inputs (pad on the left)")
        return self._outputs(cache, num_outputs)

    @torch.no_grad()
    def score(self, batch: Batch, num_outputs: int | None = None) -> Any:
        """Compute the outputs for the last inputs of whole sequences, each as :meth:`extend` computes it.

        Args:
            batch: batch that the input adapter reads, of any number of inputs: tensors (b, m, ...). Padding is on the
                left or on the right.
            num_outputs: outputs to compute. Default: one for each input.

        Returns:
            The output adapter's output (b, ``num_outputs``, ...); without meaning at padding.

        Raises:
            ValueError: if ``num_outputs`` is out of range.
        """
        cache = self.create_cache()
        self._append(batch, cache)
        return self._outputs(cache, len(cache) if num_outputs is None else num_outputs)

    def _append(self, batch: Batch, cache: SequenceCache) -> bool:
        """Append inputs to a cache, count leading padding, and return whether there is other padding."""
        start, size = len(cache), self.config.max_seq_len
        cache.append(batch)
        if start == 0:
            cache.num_pads = torch.zeros(cache.batch_size, dtype=torch.long)
        is_padding = cache.num_pads == start  # so far
        if not is_padding.any():
            return False
        slices = (cache.inputs_between(i, min(i + size, len(cache))) for i in range(start, len(cache), size))
        masks = [mask.cpu() for each in slices if (mask := self.input_adapter(each).pad_mask) is not None]
        if not masks:
            return False
        pad_mask = torch.cat(masks, dim=1)[is_padding]
        num_leading = _count_leading(pad_mask)
        cache.num_pads[is_padding] += num_leading
        return not torch.equal(num_leading, pad_mask.sum(dim=1))

    def _outputs(self, cache: SequenceCache, num_outputs: int) -> Any:
        """Compute the outputs for the last inputs of a cache."""
        length = len(cache)
        if not 1 <= num_outputs <= length - cache.num_seen:
            raise ValueError(f"num_outputs={num_outputs}: must be 1 to {length - cache.num_seen}, the inputs given")
        latents, first = [], length - num_outputs
        for stop, bounds in self._groups(cache, first, length):
            latents.append(self._advance(cache, stop, bounds)[:, first - stop :])
            first = stop
        return self._predict(latents)

    def _groups(self, cache: SequenceCache, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Divide the inputs from ``start`` to ``stop`` where latents or window of an example advance.

        Yields:
            The last length of each group, and the window starts and latent starts of its examples (2, b).
        """
        lengths = torch.arange(start + 1, stop + 1)
        sizes = (self.config.max_seq_len, self.config.num_latents)
        own = lengths[:, None] - cache.num_pads
        bounds = torch.stack([cache.num_pads + grid(own, size, self.config.stride) for size in sizes], dim=1)
        is_last = torch.ones_like(lengths, dtype=torch.bool)
        is_last[:-1] = (bounds[1:] != bounds[:-1]).flatten(1).any(dim=1)
        yield from zip(lengths[is_last].tolist(), bounds[is_last], strict=True)

    def _advance(self, cache: SequenceCache, stop: int, bounds: Tensor) -> Tensor:
        """Compute the latents of the inputs up to ``stop`` that are not in the cache, or all if their bounds moved."""
        self._move(cache, bounds)
        first_key, first_latent = cache.keys.stop, cache.latents[0].stop
        first = min(first_key, first_latent)
        x = self.input_adapter(cache.inputs_between(first, stop)).x
        columns = torch.arange(first, stop, device=x.device)
        window_starts, latent_starts = bounds.to(x.device)[..., None]
        x = self.encoder.add_positions(x, columns - window_starts)
        prefix_mask = None
        if self.config.separate_prefix_norm:
            prefix_mask = columns[first_key - first :] < latent_starts
        return self.encoder(
            x[:, first_latent - first :],
            x[:, first_key - first :],
            columns,
            _mask_before(bounds[0], cache.keys.start, stop, x.device),
            _mask_before(bounds[1], cache.latents[0].start, stop, x.device),
            prefix_mask,
            cache,
        )

    def _move(self, cache: SequenceCache, bounds: Tensor) -> None:
        """Drop from a cache what does not hold for new bounds."""
        window_start, latent_start = bounds.amin(dim=1).tolist()
        if cache.bounds is None or not torch.equal(bounds, cache.bounds):
            if self.config.separate_prefix_norm:  # keys of latents have another norm than those of the prefix
                cache.keys.truncate(min(latent_start, cache.latents[0].start))
            if self.config.absolute_positions and (cache.bounds is None or not torch.equal(bounds[0], cache.bounds[0])):
                cache.keys.restart(window_start)
            for each in cache.latents:
                each.restart(latent_start)
            cache.bounds = bounds
        for each, start in ((cache.keys, window_start), *((each, latent_start) for each in cache.latents)):
            each.advance(start)


def draw_positions(
    batch_size: int, num_positions: int, num_drawn: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """Draw different positions for each example.

    Args:
        batch_size: examples b.
        num_positions: positions to draw from.
        num_drawn: positions to draw.
        generator: random generator. None: torch's.
        device: device of the result.

    Returns:
        Positions in ascending order (b, ``num_drawn``).
    """
    random = torch.rand(
        batch_size, num_positions, generator=generator, device=generator.device if generator else device
    )
    return random.topk(num_drawn, dim=1).indices.sort(dim=1).values.to(device)


def _check_adapters(config: PerceiverARConfig, input_adapter: InputAdapter, output_adapter: OutputAdapter) -> None:
    """Check that adapters have the channels of the latents, are causal, and leave no weights unused."""
    if not input_adapter.is_causal:
        raise ValueError(
            f"{type(input_adapter).__name__}: does not embed each input by itself, as Perceiver AR needs (choose "
            "another encoder, such as 'tokens', or declare is_causal)"
        )
    provider = output_adapter.query_provider
    channels = {"input": input_adapter.num_input_channels, "output query": provider.num_query_channels}
    for name, number in channels.items():
        if number != config.num_latent_channels:
            raise ValueError(
                f"{type(config).__name__}.num_latent_channels={config.num_latent_channels}: must equal the {name} "
                f"channels, {number}"
            )
    if next(provider.parameters(), None) is not None:
        raise ValueError(
            f"{type(provider).__name__}: output queries have no meaning in Perceiver AR "
            f"(choose an output adapter without learned queries instead of {type(output_adapter).__name__})"
        )


def _count_leading(mask: Tensor) -> Tensor:
    """Count the leading True of each row of a mask (b, m)."""
    return ((~mask).cumsum(dim=1) == 0).sum(dim=1)  # ONNX has no cumulative product


def _mask_before(starts: Tensor, first: int, stop: int, device: torch.device) -> Tensor | None:
    """Return a mask (b, stop - first) of the positions before the start of each example, or None if all are after."""
    if int(starts.max()) <= first:
        return None
    return torch.arange(first, stop, device=device) < starts.to(device)[:, None]
