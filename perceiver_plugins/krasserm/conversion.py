"""Exact conversion of the models of krasserm/perceiver-io: configurations, and names of weights.

Both projects use the same names for fields of configurations. Models of perceiver-io are an ``nn.Sequential`` of an
encoder (``0.``) and a decoder (``1.``), except Perceiver AR, which :mod:`perceiver_plugins.krasserm.causal` converts.
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
from perceiver_plugins.krasserm.causal import CausalConversion, causal_conversion_of
from perceiver_plugins.krasserm.files import Original, is_causal
from perceiver_plugins.krasserm.weights import encoder_pairs, layer_pairs, rename_weights
from perceiver_plugins.sdk.state_dicts import Pairs, module_pairs
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import UserError

Values = Mapping[str, Any]
Config = PerceiverConfig[Any, Any]

TRAINING_FIELDS = ("params", "freeze")
"""Fields that concern the training of a model, not its computation."""

POSITIONS = "0.input_adapter.position_encoding.position_encoding"
"""Buffer of the Fourier positions, which this project computes."""

POSITIONS_TOLERANCE = 0.02
"""Absolute tolerance of stored positions, for rounding to half precision."""

NUM_COLOURS = 3


@dataclass(frozen=True)
class Conversion:
    """Conversion of one kind of model.

    Args:
        kind: name of the kind in messages.
        task: name of the task in this project.
        fields: a field of the original encoder's configuration and one of the decoder's, which together identify the
            kind.
        convert_parts: converts the original encoder's and decoder's configurations.
        input_pairs: returns the pairs of the input adapter.
        output_pairs: returns the pairs of the output adapter, from the converted decoder's configuration.
        data: returns the description of the data, from the converted configuration and the original model.
        grid: field of the converted encoder's configuration with the grid size of the Fourier positions. None: no
            Fourier positions.
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
        """Convert the configuration of an original model.

        Raises:
            UserError: if a field is missing, or if its values are not supported.
        """
        config = original.config
        try:
            encoder, decoder = self.convert_parts(
                config["encoder"], {**config["decoder"], "label_names": original.label_names}
            )
            return PerceiverConfig(encoder, decoder, config["num_latents"], config["num_latent_channels"])
        except KeyError as error:
            raise UserError(f"{original.source}: the configuration of a {self.kind} lacks {error.args[0]!r}") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"{original.source}: unsupported {self.kind}: {error}") from error

    def pairs(self, config: Config) -> Pairs:
        """Return the pairs of all parameters of a model with a converted configuration."""
        yield from self.input_pairs()
        yield from encoder_pairs(config.encoder)
        residual = config.decoder.cross_attention_residual
        yield from layer_pairs("decoder.cross_attention_layer", "1.cross_attn", cross=True, residual=residual)
        yield from self.output_pairs(config.decoder)

    def convert_state(self, original: Original, config: Config) -> dict[str, Tensor]:
        """Convert the state dict of an original model to one of the model with ``config``.

        Raises:
            UserError: if the weights do not fit the configuration.
        """
        state = dict(original.state())
        stored_positions = state.pop(POSITIONS, None) if self.grid else None
        renamed = rename_weights(original, state, self.pairs(config), self.kind)
        if self.grid and stored_positions is not None:
            size = getattr(config.encoder, self.grid)
            positions = FourierPositions(config.encoder.num_frequency_bands, size)(size)
            if not _agree(stored_positions, positions):
                raise UserError(
                    f"{original.source}: its stored Fourier positions differ from those of its configuration"
                )
        return renamed


def _agree(stored: Tensor, computed: Tensor) -> bool:
    same_shape = stored.shape == computed.shape
    return same_shape and torch.allclose(stored.float(), computed, rtol=0.0, atol=POSITIONS_TOLERANCE)


def select_values(original: Values, config_type: type) -> dict[str, Any]:
    """Return the original values of the fields that ``config_type`` also has, except those of training."""
    names = {each.name for each in fields(config_type)}
    return {name: value for name, value in original.items() if name in names and name not in TRAINING_FIELDS}


def _text_inputs() -> Pairs:
    for name, original_name in {"token": "txt", "position": "pos"}.items():
        yield f"input_adapter.{name}_embedding.weight", f"0.input_adapter.{original_name}_embedding.weight"


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


def _text_encoder(original: Values) -> TextEncoderConfig:
    sizes = {name: original[name] for name in ("vocab_size", "max_seq_len", "num_input_channels")}
    return TextEncoderConfig(**(select_values(original, TextEncoderConfig) | sizes))


def _language_model(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    return _text_encoder(encoder), TextDecoderConfig(**select_values(decoder, TextDecoderConfig))


def _text_classifier(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    return _text_encoder(encoder), ClassificationDecoderConfig(**select_values(decoder, ClassificationDecoderConfig))


def _image_classifier(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    *resolution, num_channels = encoder["image_shape"]
    positions = FourierPositions(encoder["num_frequency_bands"], tuple(resolution))
    values = select_values(encoder, ImagePixelsEncoderConfig) | {
        "num_channels": num_channels,
        "max_resolution": positions.max_resolution,
    }
    # Channels default to those of the input in perceiver-io, to those of the latents in this project.
    if values.get("num_cross_attention_qk_channels") is None:
        values["num_cross_attention_qk_channels"] = num_channels + positions.num_channels
    # Image classifiers of perceiver-io ignore num_output_queries of their configuration.
    one_query = select_values(decoder, ClassificationDecoderConfig) | {"num_output_queries": 1}
    return ImagePixelsEncoderConfig(**values), ClassificationDecoderConfig(**one_query)


def _optical_flow(encoder: Values, decoder: Values) -> tuple[EncoderConfig, DecoderConfig]:
    numbers_per_patch, num_patch_channels = encoder["num_patch_input_channels"], encoder["num_patch_hidden_channels"]
    patch_size = math.isqrt(numbers_per_patch // NUM_COLOURS)
    if NUM_COLOURS * patch_size**2 != numbers_per_patch:
        raise ValueError(f"num_patch_input_channels={numbers_per_patch}: must be 3 colours of a square patch")
    if [*decoder["image_shape"]] != [*encoder["image_shape"]]:
        raise ValueError(f"decoder.image_shape={decoder['image_shape']}: must be that of the encoder")
    positions = FourierPositions(encoder["num_frequency_bands"], tuple(encoder["image_shape"]))
    values = select_values(encoder, FlowPatchesEncoderConfig) | {
        "patch_size": patch_size,
        "num_patch_channels": num_patch_channels,
        "image_size": positions.max_resolution,
    }
    for name in ("num_cross_attention_qk_channels", "num_cross_attention_v_channels"):
        if values.get(name) is None:
            values[name] = num_patch_channels + positions.num_channels
    return FlowPatchesEncoderConfig(**values), OpticalFlowDecoderConfig(
        **select_values(decoder, OpticalFlowDecoderConfig)
    )


LANGUAGE_MODEL = Conversion(
    kind="language model of perceiver-io",
    task="mlm",
    fields=("vocab_size", "vocab_size"),
    convert_parts=_language_model,
    input_pairs=_text_inputs,
    output_pairs=_token_outputs,
    data=partial(data.describe_texts, target="masked"),
)

TEXT_CLASSIFIER = Conversion(
    kind="text classifier of perceiver-io",
    task="text-classification",
    fields=("vocab_size", "num_classes"),
    convert_parts=_text_classifier,
    input_pairs=_text_inputs,
    output_pairs=_class_outputs,
    data=partial(data.describe_texts, target="class"),
)

IMAGE_CLASSIFIER = Conversion(
    kind="image classifier of perceiver-io",
    task="image-classification",
    fields=("image_shape", "num_classes"),
    convert_parts=_image_classifier,
    input_pairs=lambda: iter(()),
    output_pairs=_class_outputs,
    data=data.describe_images,
    grid="max_resolution",
)

OPTICAL_FLOW = Conversion(
    kind="optical flow model of perceiver-io",
    task="optical-flow",
    fields=("num_patch_input_channels", "rescale_factor"),
    convert_parts=_optical_flow,
    input_pairs=lambda: module_pairs("input_adapter.linear", "0.input_adapter.linear"),
    output_pairs=lambda decoder: _linear_output(),
    data=data.describe_frames,
    grid="image_size",
)

CONVERSIONS = (LANGUAGE_MODEL, TEXT_CLASSIFIER, IMAGE_CLASSIFIER, OPTICAL_FLOW)

SUPPORTED = "language models, classifiers of texts and of images, optical flow, and Perceiver AR are supported"


def conversion_of(original: Original) -> Conversion | CausalConversion:
    """Return the conversion of a model's kind.

    Raises:
        UserError: if the kind is not supported.
    """
    if is_causal(original.config):
        return causal_conversion_of(original)
    parts = [original.config.get(part) for part in ("encoder", "decoder")]
    for conversion in CONVERSIONS:
        fields_of_parts = zip(parts, conversion.fields, strict=True)
        if all(isinstance(part, Mapping) and name in part for part, name in fields_of_parts):
            return conversion
    raise UserError(f"{original.source}: unknown kind of model of perceiver-io ({SUPPORTED})")
