"""Exact conversion of Hugging Face's three Perceivers for image classification in both directions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import transformers

from perceiver_core import PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig
from perceiver_plugins.huggingface.classifiers import (
    classification_decoder_pairs,
    classification_decoder_values,
    classification_settings,
)
from perceiver_plugins.huggingface.conversion import (
    Conversion,
    encoder_pairs,
    encoder_values,
)
from perceiver_plugins.image.config import (
    ImageConvEncoderConfig,
    ImageEncoderConfig,
    ImageLearnedEncoderConfig,
    ImagePixelsEncoderConfig,
)
from perceiver_plugins.image.published import PublishedFormat, image_format_of, published_format
from perceiver_plugins.sdk.errors import one_line
from perceiver_plugins.sdk.hub import file_of
from perceiver_plugins.sdk.state_dicts import Pairs
from perceiver_registry import UserError
from perceiver_registry.plain_data import load_json, read_settings

KIND = "Perceiver for image classification"

CROP_PCT = 224 / 256
"""Default size of the centre crop of Hugging Face's image processor, relative to the image."""


@dataclass(frozen=True)
class Architecture:
    """Hard-coded properties of one of Hugging Face's classes.

    Args:
        encoder: class of the converted encoder's configuration.
        num_input_channels: input channels of the encoder.
        values: returns the encoder's fields that belong to the input adapter, from Hugging Face's configuration.
        parameters: names of the input adapter's parameters and statistics in this project, and in transformers.
        settings: returns Hugging Face's settings that belong to the input, from the converted encoder's configuration.
    """

    encoder: type[ImageEncoderConfig]
    num_input_channels: int
    values: Callable[[transformers.PerceiverConfig], dict[str, Any]]
    parameters: Mapping[str, str]
    settings: Callable[[Any], dict[str, Any]] = lambda encoder: {}


ARCHITECTURES = {
    "PerceiverForImageClassificationLearned": Architecture(
        encoder=ImageLearnedEncoderConfig,
        num_input_channels=512,
        values=lambda config: {
            "num_conv_channels": 256,
            "image_size": (config.image_size, config.image_size),
            "num_position_channels": 256,
        },
        parameters={
            "conv.weight": "convnet_1x1.weight",
            "conv.bias": "convnet_1x1.bias",
            "position_embeddings": "position_embeddings.position_embeddings",
            "positions_projection.weight": "positions_projection.weight",
            "positions_projection.bias": "positions_projection.bias",
        },
        settings=lambda encoder: {"image_size": encoder.image_size[0]},
    ),
    "PerceiverForImageClassificationFourier": Architecture(
        encoder=ImagePixelsEncoderConfig,
        num_input_channels=261,
        values=lambda config: {"num_frequency_bands": 64, "max_resolution": (224, 224)},
        parameters={},
    ),
    "PerceiverForImageClassificationConvProcessing": Architecture(
        encoder=ImageConvEncoderConfig,
        num_input_channels=322,
        values=lambda config: {"num_conv_channels": 64, "num_frequency_bands": 64, "max_resolution": (56, 56)},
        parameters={
            "stem.conv.weight": "convnet.conv.weight",
            "stem.norm.weight": "convnet.batchnorm.weight",
            "stem.norm.bias": "convnet.batchnorm.bias",
            "stem.norm.running_mean": "convnet.batchnorm.running_mean",
            "stem.norm.running_var": "convnet.batchnorm.running_var",
            "stem.norm.num_batches_tracked": "convnet.batchnorm.num_batches_tracked",
        },
    ),
}
"""Properties by class, as in ``architectures`` of a configuration."""


def convert_config(
    config: transformers.PerceiverConfig, architecture: str | None = None, params: str | None = None
) -> PerceiverConfig[ImageEncoderConfig, ClassificationDecoderConfig]:
    """Convert a configuration of one of Hugging Face's image classifiers.

    Args:
        config: Hugging Face's configuration.
        architecture: name of Hugging Face's class. None: that of ``config.architectures``.
        params: source of the weights. None: source of ``config``, if it was loaded.

    Raises:
        ValueError: if the activation of ``config`` is not the exact GELU, or if the class is not in
            :data:`ARCHITECTURES`.
    """
    if architecture is None:
        architecture = next(iter(config.architectures or ()), None)
    if architecture not in ARCHITECTURES:
        raise ValueError(f"architecture={architecture!r}: must be one of {', '.join(ARCHITECTURES)}")
    properties = ARCHITECTURES[architecture]
    return PerceiverConfig(
        properties.encoder(
            num_channels=3, **properties.values(config), **encoder_values(config, properties.num_input_channels)
        ),
        ClassificationDecoderConfig(**classification_decoder_values(config)),
        num_latents=config.num_latents,
        num_latent_channels=config.d_latents,
        params=params or config.name_or_path or None,
    )


def key_pairs(architecture: str, num_layers: int) -> Pairs:
    """Yield the names of each parameter in this project and in transformers.

    Args:
        architecture: name of Hugging Face's class.
        num_layers: number of self-attention layers in a block.
    """
    for name, hf_name in ARCHITECTURES[architecture].parameters.items():
        yield f"input_adapter.{name}", f"perceiver.input_preprocessor.{hf_name}"
    yield from encoder_pairs(num_layers)
    yield from classification_decoder_pairs()


def _data(config: transformers.PerceiverConfig, source: str) -> dict[str, Any]:
    """Describe the images: options of the model's image processor, or Hugging Face's defaults."""
    file = file_of(source, "preprocessor_config.json")
    if file is None:
        size: Any = config.image_size
        return PublishedFormat.from_config({"size": size, "crop_size": round(size / CROP_PCT)}).description()
    try:
        options = load_json(read_settings(file))
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: cannot read preprocessor_config.json: {one_line(error)}") from error
    return published_format(options, f"{source}: its preprocessor_config.json").description()


def _processor(config: PerceiverConfig[Any, Any], data: Mapping[str, Any]) -> Any:
    if data.get("num_channels") != 3 or "image_size" not in data:
        return None
    image_format = image_format_of(data)
    if isinstance(image_format, PublishedFormat):
        return image_format.processor
    size, crop_size = (
        dict(zip(("height", "width"), (round(side / crop) for side in image_format.image_size), strict=True))
        for crop in (1.0, image_format.crop_pct)
    )
    return transformers.PerceiverImageProcessor(
        size=size, crop_size=crop_size, image_mean=list(image_format.mean), image_std=list(image_format.std)
    )


def _conversion(architecture: str) -> Conversion:
    return Conversion(
        architecture=architecture,
        kind=KIND,
        encoder=ARCHITECTURES[architecture].encoder,
        decoder=ClassificationDecoderConfig,
        convert_config=lambda config: convert_config(config, architecture),
        settings=lambda config: (
            ARCHITECTURES[architecture].settings(config.encoder) | classification_settings(config.decoder)
        ),
        pairs=lambda config: key_pairs(architecture, config.encoder.num_self_attention_layers_per_block),
        task="image-classification",
        hugging_face_inputs=lambda config, batch: {"inputs": batch["pixel_values"]},
        data=_data,
        processor=_processor,
    )


CONVERSIONS = tuple(map(_conversion, ARCHITECTURES))
