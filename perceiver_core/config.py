"""Configs: hyperparameters of Perceiver models.

An adapter adds its own fields in a subclass of :class:`EncoderConfig` or :class:`DecoderConfig`; the type of the
subclass selects the adapter. Every field is also a flag of the command line.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

from perceiver_core.mlp import Activation
from perceiver_core.norm import Norm

Init = Literal["normal", "local"]

Pooling = Literal["attention", "mean"]

ADAPTER_FIELDS = ("init_scale",)
"""Fields of encoder and decoder configs that adapters read, in every architecture."""


def require(condition: bool, config: Any, field: str, rule: str) -> None:
    """Raise ValueError naming ``field`` of ``config`` and its value, unless ``condition`` holds."""
    if not condition:
        raise ValueError(f"{type(config).__name__}.{field}={getattr(config, field)!r}: {rule}")


def require_choice(config: Any, field: str, choices: Any) -> None:
    """Raise ValueError unless ``field`` of ``config`` is a value of the Literal type ``choices``."""
    values = get_args(choices)
    require(getattr(config, field) in values, config, field, f"must be one of {', '.join(values)}")


def require_positive(config: Any, *fields: str) -> None:
    """Raise ValueError unless each of ``fields`` is at least 1, or None if its type has None."""
    types = {field.name: str(field.type) for field in dataclasses.fields(config)}
    for field in fields:
        value, declared = getattr(config, field), types[field]
        is_valid = "None" in declared or "Optional" in declared if value is None else value >= 1
        require(is_valid, config, field, "must be at least 1")


def require_divisible(config: Any, field: str, channels: int | None, heads_field: str) -> None:
    """Raise ValueError unless ``channels`` (of ``field``; None: not known yet) can be split into the heads."""
    heads = getattr(config, heads_field)
    if channels is not None and channels % heads != 0:
        raise ValueError(f"{type(config).__name__}.{field}={channels}: must be divisible by {heads_field}={heads}")


@dataclass
class CrossAttentionConfig:
    """Cross-attention config: base class of encoder and decoder configs.

    Args:
        num_cross_attention_heads: heads of the cross-attention.
        num_cross_attention_qk_channels: query and key channels of all heads. Default: latent channels in an encoder,
            output query channels in a decoder.
        num_cross_attention_v_channels: value channels of all heads. Default: the query and key channels.
        cross_attention_widening_factor: hidden channels per channel in the MLP of the cross-attention layer.
        cross_attention_residual: add a residual connection around the cross-attention.
        dropout: dropout probability of the attention weights, in all attentions.
        residual_dropout: dropout probability of the outputs of attentions and MLPs.
        activation: activation function of the MLPs. "geglu" and "swiglu" are gated linear units (arXiv 2002.05202),
            which double the weights of an MLP's first layer.
        norm: kind of the norms before attentions and MLPs: "layer", or "rms" (root mean square, arXiv 1910.07467).
        init_scale: standard deviation of the normal initialisation.
        freeze: do not train the weights, including those of the adapter. Weights that an output adapter shares with
            the input adapter are the encoder's.
    """

    num_cross_attention_heads: int = 8
    num_cross_attention_qk_channels: int | None = None
    num_cross_attention_v_channels: int | None = None
    cross_attention_widening_factor: int = 1
    cross_attention_residual: bool = True
    dropout: float = 0.0
    residual_dropout: float = 0.0
    activation: Activation = "gelu"
    norm: Norm = "layer"
    init_scale: float = 0.02
    freeze: bool = False

    def __post_init__(self) -> None:
        require_positive(
            self,
            "num_cross_attention_heads",
            "num_cross_attention_qk_channels",
            "num_cross_attention_v_channels",
            "cross_attention_widening_factor",
        )
        self._require_divisible_channels("cross")
        for field in ("dropout", "residual_dropout"):
            require(0.0 <= getattr(self, field) < 1.0, self, field, "must be at least 0 and less than 1")
        require_choice(self, "activation", Activation)
        require_choice(self, "norm", Norm)
        require(self.init_scale > 0.0, self, "init_scale", "must be greater than 0")

    def _require_divisible_channels(self, kind: str) -> None:
        for channels in ("qk", "v"):
            field = f"num_{kind}_attention_{channels}_channels"
            require_divisible(self, field, getattr(self, field), f"num_{kind}_attention_heads")


@dataclass
class EncoderConfig(CrossAttentionConfig):
    """Encoder config: base class of those of input adapters (Perceiver IO, arXiv 2107.14795, section 3.1, appendix E).

    Args:
        num_cross_attention_layers: cross-attention layers: one before the first self-attention block, one before the
            second, and so on. At most ``num_self_attention_blocks``.
        first_cross_attention_layer_shared: share the weights of the first cross-attention layer with the later ones
            (which always share theirs).
        num_self_attention_heads: heads of the self-attention.
        num_self_attention_qk_channels: query and key channels of all heads. Default: latent channels.
        num_self_attention_v_channels: value channels of all heads. Default: the query and key channels.
        num_self_attention_layers_per_block: self-attention layers in a block; no two layers of a block share weights.
            0: no self-attention.
        num_self_attention_blocks: applications of the self-attention block.
        first_self_attention_block_shared: share the weights of the first block with the later ones (which always share
            theirs).
        share_repeated_layers: share weights among repeated cross-attention layers and blocks, apart from a first one
            that is not shared. False: no two applications share weights.
        self_attention_widening_factor: hidden channels per channel in the MLP of the self-attention layers.
        attend_to_latents: cross-attentions attend to the latents in addition to the input, which must have as many
            channels (Perceiver Resampler of Flamingo, arXiv 2204.14198, section 3.1).
        params: source of the weights of the encoder and its input adapter, with any decoder: a checkpoint of this
            project, a safetensors file, or the id or folder of a published model. Default: fresh weights, or those of
            the model's ``params``.
    """

    num_cross_attention_layers: int = 1
    first_cross_attention_layer_shared: bool = False
    num_self_attention_heads: int = 8
    num_self_attention_qk_channels: int | None = None
    num_self_attention_v_channels: int | None = None
    num_self_attention_layers_per_block: int = 8
    num_self_attention_blocks: int = 1
    first_self_attention_block_shared: bool = True
    share_repeated_layers: bool = True
    self_attention_widening_factor: int = 1
    attend_to_latents: bool = False
    params: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            self,
            "num_cross_attention_layers",
            "num_self_attention_heads",
            "num_self_attention_qk_channels",
            "num_self_attention_v_channels",
            "num_self_attention_blocks",
            "self_attention_widening_factor",
        )
        num_layers = self.num_self_attention_layers_per_block
        has_number = num_layers is not None and num_layers >= 0
        require(has_number, self, "num_self_attention_layers_per_block", "must be at least 0")
        self._require_divisible_channels("self")
        require(
            self.num_cross_attention_layers <= self.num_self_attention_blocks,
            self,
            "num_cross_attention_layers",
            f"must not exceed num_self_attention_blocks={self.num_self_attention_blocks}",
        )

    def without_params(self) -> Self:
        """Return the config without a source of weights, as it is stored beside weights."""
        return replace(self, params=None)


@dataclass
class DecoderConfig(CrossAttentionConfig):
    """Decoder config: base class of those of output adapters. A decoder is one cross-attention layer.

    Args:
        pooling: "attention": output queries attend to the latents. "mean": the normalised and projected mean of the
            latents is added to the output queries; the options of the cross-attention have no effect.
        mlp: apply the layer's MLP.
    """

    pooling: Pooling = "attention"
    mlp: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choice(self, "pooling", Pooling)


@dataclass
class LatentsDecoderConfig(DecoderConfig):
    """Config of a decoder without weights, which returns the latents. Options of attention and MLP have no effect.

    Args:
        num_latents: latents n of the model.
    """

    num_latents: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_latents")


E = TypeVar("E", bound=EncoderConfig)
D = TypeVar("D", bound=DecoderConfig)


@dataclass
class ModelConfig(Generic[E, D]):
    """Base class of model configs: encoder and decoder, whose types select the adapters.

    The type of a model config selects the architecture. A subclass adds the architecture's own fields, which have
    defaults, and ``params: str | None = None``, the source of the weights, which the registry reads. It lists the
    fields of :class:`EncoderConfig` and :class:`DecoderConfig` that the architecture uses in :attr:`encoder_fields` and
    :attr:`decoder_fields`. All others must have their defaults. The fields that adapters add, and ``init_scale``, apply
    to every architecture.

    Args:
        encoder: encoder config.
        decoder: decoder config.

    Raises:
        ValueError: if a field of encoder or decoder that the architecture does not use has another value than its
            default.
    """

    encoder_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields of :class:`EncoderConfig` that the architecture uses."""

    decoder_fields: ClassVar[tuple[str, ...]] = ()
    """Names of the fields of :class:`DecoderConfig` that the architecture uses."""

    encoder: E
    decoder: D

    def __post_init__(self) -> None:
        for part in ("encoder", "decoder"):
            config = getattr(self, part)
            for name in sorted(self.unused_fields(part)):
                value, default = getattr(config, name), type(config).__dataclass_fields__[name].default
                if value != default:
                    field = f"{type(self).__name__}.{part}.{name}"
                    raise ValueError(f"{field}={value!r}: has no effect in this architecture (leave it out)")

    @classmethod
    def unused_fields(cls, part: str) -> frozenset[str]:
        """Return the names of the fields that the architecture does not use.

        Args:
            part: "encoder" or "decoder".
        """
        base = EncoderConfig if part == "encoder" else DecoderConfig
        used = cls.encoder_fields if part == "encoder" else cls.decoder_fields
        return frozenset(field.name for field in dataclasses.fields(base)).difference(used, ADAPTER_FIELDS)

    def without_params(self) -> Self:
        """Return the config without a source of weights, as it is stored beside weights."""
        return replace(self, encoder=self.encoder.without_params(), params=None)  # type: ignore[call-arg]


def require_divisible_latents(config: Any) -> None:
    """Raise ValueError unless latent channels can be split into heads: they are the default of queries and keys.

    Args:
        config: config of a model with ``num_latent_channels``, in which latents are the queries of the attentions.
    """
    for kind in ("cross", "self"):
        if getattr(config.encoder, f"num_{kind}_attention_qk_channels") is None:
            heads = getattr(config.encoder, f"num_{kind}_attention_heads")
            require(
                config.num_latent_channels % heads == 0,
                config,
                "num_latent_channels",
                f"must be divisible by encoder.num_{kind}_attention_heads={heads}, "
                f"or set encoder.num_{kind}_attention_qk_channels",
            )


@dataclass
class PerceiverConfig(ModelConfig[E, D]):
    """Config of Perceiver IO: encoder and decoder, whose types select the adapters, around one latent array.

    Args:
        encoder: encoder config.
        decoder: decoder config.
        num_latents: latents n.
        num_latent_channels: latent channels d.
        activation_checkpointing: recompute the activations inside each attention layer in the backward pass: less
            memory, more time, the same gradients.
        activation_offloading: keep the activations that the backward pass needs in CPU memory.
        init: "normal" draws all weights from a normal distribution, as the paper does. "local" starts latents as the
            positions of evenly spread points of the input (learned positions and output queries as sinusoids), with
            aligned projections in the cross-attentions, so that attention starts local. Along a sequence,
            self-attention layers add little at first. Small models learn much sooner. It needs an input adapter with
            positions on a sequence or a grid.
        params: source of the weights: the id of a published model, a local folder in the hub's layout, a checkpoint of
            this project, or a safetensors file. Default: fresh weights.
        compile: compile each attention layer when the model is trained (``torch.compile``, which needs a C++ compiler):
            meant for GPUs, on CPUs it does not pay. Checkpoints and predictions stay the same.
    """

    encoder_fields = tuple(field.name for field in dataclasses.fields(EncoderConfig))
    decoder_fields = tuple(field.name for field in dataclasses.fields(DecoderConfig))

    num_latents: int = 256
    num_latent_channels: int = 512
    activation_checkpointing: bool = False
    activation_offloading: bool = False
    init: Init = "normal"
    params: str | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "num_latents", "num_latent_channels")
        require_choice(self, "init", Init)
        require_divisible_latents(self)
        if isinstance(self.decoder, LatentsDecoderConfig):
            rule = f"must equal num_latents={self.num_latents} of the model"
            require(self.decoder.num_latents == self.num_latents, self.decoder, "num_latents", rule)
