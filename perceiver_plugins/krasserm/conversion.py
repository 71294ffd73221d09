"""Exact conversion of the models of krasserm's perceiver-io: configurations, and names of weights.

It calls the fields of a configuration what they are called here. A "pair" is the name of a parameter here and in its
model, an anonymous sequence of an encoder (``0.``) and a decoder (``1.``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from perceiver_core import DecoderConfig, EncoderConfig, FourierPositions, PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig
from perceiver_plugins.image.config import ImagePixelsEncoderConfig
from perceiver_plugins.krasserm import data
from perceiver_plugins.krasserm.files import Original, is_causal
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import UserError

Values = Mapping[str, Any]
Config = PerceiverConfig[Any, Any]

NOT_KEPT = ("params", "freeze")
"""Fields that say how a model was trained, not what it computes."""

POSITIONS = "0.input_adapter.position_encoding.position_encoding"
"""Where it stores the Fourier positions, which are computed here."""

POSITIONS_TOLERANCE = 0.02
"""How far stored positions may lie from those that are computed here: rounding, in half precision too."""

NUM_COLOURS = 3


@dataclass(frozen=True)
class Conversion:
    """Conversion of one kind of its models.

    Args:
        kind: what a person calls such a model.
        task: the name of the task here.
        fields: two fields, of the encoder's and of the decoder's configuration there, that only this kind has both.
        convert_parts: the encoder's and the decoder's configuration here, from the values there.
        input_pairs: pairs of the input adapter.
        output_pairs: pairs of the output adapter, for a decoder here.
        data: what prediction must know of the data, from a configuration here and the model there.
        grid: the encoder's field here that holds the size of the grid of its Fourier positions; None: it has none.
    """

    kind: str
    task: str
    fields: tuple[str, str]
    convert_parts: Callable[[Values, Values], tuple[EncoderConfig, DecoderConfig]]
    input_pairs: Callable[[], Pairs]
    output_pairs: Callable[[Any], Pairs]
    data: Callable[[Config, Original], dict[str, Any]]
    grid: str | None = None

    def convert_config(self, original: Original) -> Config:
        """The configuration here of a model there.

        Raises:
            UserError: if it lacks a field, or has values that no model here can have.
        """
        theirs = original.config
        try:
            encoder, decoder = self.convert_parts(
                theirs["encoder"], {**theirs["decoder"], "label_names": original.label_names}
            )
            return PerceiverConfig(encoder, decoder, theirs["num_latents"], theirs["num_latent_channels"])
        except KeyError as error:
            raise UserError(f"{original.source}: the configuration of a {self.kind} lacks {error.args[0]!r}") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{original.source}: a {self.kind} that cannot be had here: {error}") from error

    def pairs(self, config: Config) -> Pairs:
        """Pairs of all parameters of a model with that configuration."""
        yield from self.input_pairs()
        yield from encoder_pairs(config.encoder)
        residual = config.decoder.cross_attention_residual
        yield from layer_pairs("decoder.cross_attention_layer", "1.cross_attn", cross=True, residual=residual)
        yield from self.output_pairs(config.decoder)

    def convert_state(self, original: Original, config: Config) -> dict[str, Tensor]:
        """The weights of a model there under the names of the model here that has ``config``.

        Raises:
            UserError: if they are not those of its configuration.
        """
        state = dict(original.state())
        stored_positions = state.pop(POSITIONS, None) if self.grid else None
        pairs = list(self.pairs(config))
        expected = {theirs for _, theirs in pairs}
        for problem, names in (
            ("lack", expected - {*state}),
            ("do not go with its configuration:", {*state} - expected),
        ):
            if names:
                raise UserError(f"{original.source}: the weights of this {self.kind} {problem} {min(names)!r}")
        if self.grid and stored_positions is not None:
            size = getattr(config.encoder, self.grid)
            positions = FourierPositions(config.encoder.num_frequency_bands, size)(size)
            if not _agree(stored_positions, positions):
                raise UserError(
                    f"{original.source}: the Fourier positions that it stores are not those of its configuration"
                )
        return {ours: state[theirs] for ours, theirs in pairs}


def _agree(stored: Tensor, computed: Tensor) -> bool:
    same_shape = stored.shape == computed.shape
    return same_shape and torch.allclose(stored.float(), computed, rtol=0.0, atol=POSITIONS_TOLERANCE)


def values_of(theirs: Values, config_type: type) -> dict[str, Any]:
    """The values there of those fields of a configuration here that exist there as well."""
    names = {each.name for each in fields(config_type)}
    return {name: value for name, value in theirs.items() if name in names and name not in NOT_KEPT}


def encoder_pairs(encoder: EncoderConfig) -> Pairs:
    """Pairs of the encoder: ``_1`` is what is applied first, ``_n`` what is applied later with weights of its own."""
    yield "encoder.latents", "0.latent_provider._query"
    own_cross = encoder.num_cross_attention_layers > 1 and not encoder.first_cross_attention_layer_shared
    for number, suffix in enumerate("1n" if own_cross else "1"):
        yield from layer_pairs(f"encoder.cross_attention_layers.{number}", f"0.cross_attn_{suffix}", cross=True)
    own_block = encoder.num_self_attention_blocks > 1 and not encoder.first_self_attention_block_shared
    for number, suffix in enumerate("1n" if own_block else "1"):
        for layer in range(encoder.num_self_attention_layers_per_block):
            yield from layer_pairs(
                f"encoder.self_attention_blocks.{number}.{layer}", f"0.self_attn_{suffix}.{layer}", cross=False
            )


def layer_pairs(ours: str, theirs: str, cross: bool, residual: bool = True) -> Pairs:
    """Pairs of an attention layer.

    Args:
        ours: name of the layer here.
        theirs: its name there.
        cross: whether it is a cross-attention.
        residual: whether the attention's input is added to its output, for which there is a module there.
    """
    attention = f"{theirs}.0.module" if residual else f"{theirs}.0"
    for norm in ("q_norm", "kv_norm") if cross else ("norm",):
        yield from module_pairs(f"{ours}.{norm}", f"{attention}.{norm}")
    for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
        yield from module_pairs(f"{ours}.attention.{projection}", f"{attention}.attention.{projection}")
    for module, place in {"mlp_norm": 0, "mlp.hidden": 1, "mlp.output": 3}.items():
        yield from module_pairs(f"{ours}.{module}", f"{theirs}.1.module.{place}")


def _text_inputs() -> Pairs:
    for ours, theirs in {"token": "txt", "position": "pos"}.items():
        yield f"input_adapter.{ours}_embedding.weight", f"0.input_adapter.{theirs}_embedding.weight"


def _queries() -> Pairs:
    yield "output_adapter.query_provider.queries", "1.output_query_provider._query"


def _linear_output() -> Pairs:
    return module_pairs("output_adapter.linear", "1.output_adapter.linear")


def _token_outputs(decoder: TextDecoderConfig) -> Pairs:
    yield from _queries()
    if decoder.num_output_query_channels is None:
        yield "output_adapter.embedding.weight", "0.input_adapter.txt_embedding.weight"
        yield "output_adapter.bias", "1.output_adapter.bias"
    else:
        yield from _linear_output()


def _class_outputs(decoder: ClassificationDecoderConfig) -> Pairs:
    yield from _queries()
    yield from _linear_output()


def _text_encoder(theirs: Values) -> TextEncoderConfig:
    sizes = {name: theirs[name] for name in ("vocab_size", "max_seq_len", "num_input_channels")}
    return TextEncoderConfig(**(values_of(theirs, TextEncoderConfig) | sizes))


def _language_model(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    return _text_encoder(encoder), TextDecoderConfig(**values_of(decoder, TextDecoderConfig))


def _text_classifier(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    return _text_encoder(encoder), ClassificationDecoderConfig(**values_of(decoder, ClassificationDecoderConfig))


def _image_classifier(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    *resolution, num_channels = encoder["image_shape"]
    positions = FourierPositions(encoder["num_frequency_bands"], tuple(resolution))
    values = values_of(encoder, ImagePixelsEncoderConfig) | {
        "num_channels": num_channels,
        "max_resolution": positions.max_resolution,
    }
    # Where channels are not given, the attention's are those of the input there, here those of the latents.
    if values.get("num_cross_attention_qk_channels") is None:
        values["num_cross_attention_qk_channels"] = num_channels + positions.num_channels
    # Its image classifiers have one output query, whatever their configuration says.
    one_query = values_of(decoder, ClassificationDecoderConfig) | {"num_output_queries": 1}
    return ImagePixelsEncoderConfig(**values), ClassificationDecoderConfig(**one_query)


def _optical_flow(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    numbers_per_patch, num_patch_channels = encoder["num_patch_input_channels"], encoder["num_patch_hidden_channels"]
    patch_size = math.isqrt(numbers_per_patch // NUM_COLOURS)
    if NUM_COLOURS * patch_size**2 != numbers_per_patch:
        raise ValueError(f"num_patch_input_channels={numbers_per_patch}: not the colours of a square patch")
    if [*decoder["image_shape"]] != [*encoder["image_shape"]]:
        raise ValueError(f"decoder.image_shape={decoder['image_shape']}: not that of the encoder")
    positions = FourierPositions(encoder["num_frequency_bands"], tuple(encoder["image_shape"]))
    values = values_of(encoder, FlowPatchesEncoderConfig) | {
        "patch_size": patch_size,
        "num_patch_channels": num_patch_channels,
        "image_size": positions.max_resolution,
    }
    for name in ("num_cross_attention_qk_channels", "num_cross_attention_v_channels"):
        if values.get(name) is None:
            values[name] = num_patch_channels + positions.num_channels
    return FlowPatchesEncoderConfig(**values), OpticalFlowDecoderConfig(**values_of(decoder, OpticalFlowDecoderConfig))


LANGUAGE_MODEL = Conversion(
    kind="language model of perceiver-io",
    task="mlm",
    fields=("vocab_size", "vocab_size"),
    convert_parts=_language_model,
    input_pairs=_text_inputs,
    output_pairs=_token_outputs,
    data=partial(data.of_texts, target="masked"),
)

TEXT_CLASSIFIER = Conversion(
    kind="text classifier of perceiver-io",
    task="text-classification",
    fields=("vocab_size", "num_classes"),
    convert_parts=_text_classifier,
    input_pairs=_text_inputs,
    output_pairs=_class_outputs,
    data=partial(data.of_texts, target="class"),
)

IMAGE_CLASSIFIER = Conversion(
    kind="image classifier of perceiver-io",
    task="image-classification",
    fields=("image_shape", "num_classes"),
    convert_parts=_image_classifier,
    input_pairs=lambda: iter(()),
    output_pairs=_class_outputs,
    data=data.of_images,
    grid="max_resolution",
)

OPTICAL_FLOW = Conversion(
    kind="optical flow model of perceiver-io",
    task="optical-flow",
    fields=("num_patch_input_channels", "rescale_factor"),
    convert_parts=_optical_flow,
    input_pairs=lambda: module_pairs("input_adapter.linear", "0.input_adapter.linear"),
    output_pairs=lambda decoder: _linear_output(),
    data=data.of_frames,
    grid="image_size",
)

CONVERSIONS = (LANGUAGE_MODEL, TEXT_CLASSIFIER, IMAGE_CLASSIFIER, OPTICAL_FLOW)

READ = "language models, classifiers of texts and of images, and optical flow are read"


def conversion_of(original: Original) -> Conversion:
    """The conversion of a model's kind.

    Raises:
        UserError: if there is none; the message says what the model is.
    """
    if is_causal(original.config):
        raise UserError(
            f"{original.source}: a Perceiver AR of perceiver-io, which predicts how a sequence goes on: there is "
            f"no such model here; {READ}"
        )
    parts = [original.config.get(part) for part in ("encoder", "decoder")]
    for conversion in CONVERSIONS:
        fields_of_parts = zip(parts, conversion.fields, strict=True)
        if all(isinstance(part, Mapping) and name in part for part, name in fields_of_parts):
            return conversion
    raise UserError(f"{original.source}: a model of perceiver-io of a kind that is not known; {READ}")
