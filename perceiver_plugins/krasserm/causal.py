"""Exact conversion of the Perceiver AR models of krasserm/perceiver-io: causal language models and symbolic music."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation.config import NextTokenDecoderConfig, TokenEncoderConfig
from perceiver_plugins.krasserm import data
from perceiver_plugins.krasserm.files import Original
from perceiver_plugins.krasserm.weights import layer_pairs, rename_weights
from perceiver_plugins.music.config import MusicEncoderConfig
from perceiver_plugins.music.events import EventTokenizer
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs
from perceiver_registry import UserError

FREQUENCIES = "input_adapter.frq_pos_encoding.inv_freq"
"""Buffer of the rotary positions, which this project computes."""

ALL_LAYERS = -1
"""Value of ``num_self_attention_rotary_layers`` for all layers."""

DEFAULTS = {
    "num_heads": 8,
    "num_self_attention_layers": 8,
    "self_attention_widening_factor": 4,
    "cross_attention_widening_factor": 4,
    "cross_attention_dropout": 0.5,
    "post_attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "output_norm": False,
    "output_bias": True,
    "abs_pos_emb": True,
    "init_scale": 0.02,
}
"""Defaults of perceiver-io for fields that a configuration may lack."""

Config = PerceiverARConfig[Any, Any]


@dataclass(frozen=True)
class CausalConversion:
    """Conversion of one kind of Perceiver AR model.

    Args:
        kind: name of the kind in messages.
        data: function that returns the description of the data, from the converted configuration and the original
            model.
        encoder: encoder configuration of the input adapter.
        task: name of the task.
    """

    kind: str
    data: Callable[[Config, Original], dict[str, Any]]
    encoder: type[TokenEncoderConfig]
    task: str

    def convert_config(self, original: Original) -> Config:
        """Convert the configuration of an original model.

        Raises:
            UserError: if a field is missing, or if its values are not supported.
        """
        try:
            return _convert_config({**DEFAULTS, **original.config}, self.encoder)
        except KeyError as error:
            raise UserError(f"{original.source}: the configuration of a {self.kind} lacks {error.args[0]!r}") from error
        except (TypeError, ValueError, ArithmeticError) as error:
            raise UserError(f"{original.source}: unsupported {self.kind}: {error}") from error

    def convert_state(self, original: Original, config: Config) -> dict[str, Tensor]:
        """Convert the state dict of an original model to one of the model with ``config``.

        Raises:
            UserError: if the weights do not fit the configuration.
        """
        state = {name: value for name, value in original.state().items() if name != FREQUENCIES}
        return rename_weights(original, state, parameter_pairs(config), self.kind)


def _convert_config(values: Mapping[str, Any], encoder_type: type[TokenEncoderConfig]) -> Config:
    """Convert the values of a configuration by perceiver-io's names."""
    num_channels, num_heads = values["num_channels"], values["num_heads"]
    num_rotated = num_channels // num_heads // (2 if values["abs_pos_emb"] else 1)
    if num_rotated % 2:
        raise ValueError(f"num_channels={num_channels}: heads with {num_rotated} rotated channels, an odd number")
    encoder = encoder_type(
        vocab_size=values["vocab_size"],
        num_input_channels=num_channels,
        num_cross_attention_heads=num_heads,
        num_self_attention_heads=num_heads,
        num_self_attention_layers_per_block=values["num_self_attention_layers"],
        cross_attention_widening_factor=values["cross_attention_widening_factor"],
        self_attention_widening_factor=values["self_attention_widening_factor"],
        dropout=values["post_attention_dropout"],
        init_scale=values["init_scale"],
    )
    num_rotary_layers = values["num_self_attention_rotary_layers"]
    return PerceiverARConfig(
        encoder,
        NextTokenDecoderConfig(bias=values["output_bias"]),
        num_latents=values["max_latents"],
        num_latent_channels=num_channels,
        max_seq_len=values["max_seq_len"],
        prefix_dropout=values["cross_attention_dropout"],
        residual_dropout=values["residual_dropout"],
        rotary_fraction=0.5 if values["abs_pos_emb"] else 1.0,
        num_rotary_layers=None if num_rotary_layers == ALL_LAYERS else num_rotary_layers,
        absolute_positions=values["abs_pos_emb"],
        separate_prefix_norm=True,
        output_norm=values["output_norm"],
    )


def parameter_pairs(config: Config) -> Pairs:
    """Yield the names of all parameters of a model, in this project and in perceiver-io."""
    embedding = "input_adapter.txt_embedding.weight"
    yield "input_adapter.token_embedding.weight", embedding
    yield "output_adapter.embedding.weight", embedding
    if config.absolute_positions:
        yield "encoder.position_embedding.weight", "input_adapter.pos_embedding.weight"
    yield from layer_pairs(
        "encoder.cross_attention_layers.0", "cross_attention", cross=True, biases=("attention.o_proj",)
    )
    for layer in range(config.encoder.num_self_attention_layers_per_block):
        yield from layer_pairs(
            f"encoder.self_attention_blocks.0.{layer}", f"self_attention.{layer}", cross=False, biases=()
        )
    if config.output_norm:
        yield from module_pairs("output_norm", "out_norm")
    if config.decoder.bias:
        yield "output_adapter.bias", "output_adapter.bias"


LANGUAGE_MODEL = CausalConversion(
    "causal language model of perceiver-io", data.describe_prompts, TokenEncoderConfig, task="clm"
)

SYMBOLIC_MUSIC = CausalConversion(
    "model of symbolic music of perceiver-io", data.describe_events, MusicEncoderConfig, task="symbolic-music"
)


def causal_conversion_of(original: Original) -> CausalConversion:
    """Return the conversion of a Perceiver AR model. The vocabulary size identifies models of symbolic music."""
    return SYMBOLIC_MUSIC if original.config.get("vocab_size") == EventTokenizer().size else LANGUAGE_MODEL
