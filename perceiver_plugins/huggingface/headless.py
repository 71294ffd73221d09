"""Exact conversion of transformers' ``PerceiverModel`` without a decoder in both directions.

Its files do not record the input preprocessor. It is inferred from names and shapes of the weights, with a warning,
because options such as the resolution of Fourier positions have no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from pytorch_lightning.utilities import rank_zero_warn

from perceiver_core import LatentsDecoderConfig, PerceiverConfig, PerceiverIO
from perceiver_plugins.huggingface.conversion import Conversion
from perceiver_plugins.huggingface.image import CONVERSIONS as IMAGE_CONVERSIONS
from perceiver_plugins.huggingface.model_type import HEADLESS
from perceiver_plugins.huggingface.text import SEQUENCE_CLASSIFICATION
from perceiver_plugins.sdk.state_dicts import Pairs
from perceiver_registry import ModelDescription, UserError, build_adapters
from perceiver_registry.description import ModelWarning
from perceiver_registry.params import ENCODER_PREFIXES

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of weights by name in transformers."""


@dataclass(frozen=True, kw_only=True)
class HeadlessConversion(Conversion):
    """Exact conversion of an encoder with the input preprocessor of one of Hugging Face's classes.

    Args:
        preprocessor_of: name of the class.
    """

    preprocessor_of: str

    @property
    def model_type(self) -> Any:
        """Class of Hugging Face's encoders that builds the input preprocessor from the configuration."""
        with_decoder = getattr(transformers, self.preprocessor_of)

        class PerceiverModel(transformers.PerceiverModel):
            def __init__(self, config: transformers.PerceiverConfig):
                super().__init__(config, input_preprocessor=with_decoder(config).perceiver.input_preprocessor)

        return PerceiverModel

    def fits(self, config: transformers.PerceiverConfig, shapes: Shapes) -> bool:
        """Return whether weights with the given shapes are those of a model with a configuration."""
        try:
            with torch.device("meta"):
                state = self.model_type(config).state_dict()
        except ValueError:  # for example, input channels of the preprocessor that cannot be split into heads
            return False
        return {name: tuple(value.shape) for name, value in state.items()} == shapes

    def description(self, config: transformers.PerceiverConfig, source: str) -> ModelDescription:
        self._note_inference(source)
        return super().description(config, source)

    def from_hugging_face(self, model: Any) -> PerceiverIO:
        self._note_inference("model")
        return super().from_hugging_face(model)

    def _note_inference(self, source: str) -> None:
        rank_zero_warn(
            f"{source}: {HEADLESS} does not record its input preprocessor; the weights fit that of "
            f"{self.preprocessor_of}, which is used",
            category=ModelWarning,
        )


def _headless(conversion: Conversion) -> HeadlessConversion:
    """Return the conversion of the encoders that have the input preprocessor of a class."""

    def convert_config(config: transformers.PerceiverConfig) -> PerceiverConfig[Any, Any]:
        return replace(conversion.convert_config(config), decoder=LatentsDecoderConfig(num_latents=config.num_latents))

    def settings(config: PerceiverConfig[Any, Any]) -> dict[str, Any]:
        with torch.device("meta"):
            input_adapter, _ = build_adapters(config)
        # AutoModel builds the encoder without an input preprocessor, for inputs with d_model channels.
        return {**conversion.settings(config), "d_model": input_adapter.num_input_channels}

    def pairs(config: PerceiverConfig[Any, Any]) -> Pairs:
        for name, hf_name in conversion.pairs(config):
            if name.startswith(ENCODER_PREFIXES):
                yield name, hf_name.removeprefix("perceiver.")

    return HeadlessConversion(
        architecture=HEADLESS,
        preprocessor_of=conversion.architecture,
        kind="Perceiver encoder",
        encoder=conversion.encoder,
        decoder=LatentsDecoderConfig,
        convert_config=convert_config,
        settings=settings,
        pairs=pairs,
        task="embedding",
        hugging_face_inputs=conversion.hugging_face_inputs,
        hugging_face_outputs=lambda result: result.last_hidden_state,
        data=conversion.data,
        processor=conversion.processor,
        training_fields=conversion.training_fields,
    )


CONVERSIONS = tuple(map(_headless, (SEQUENCE_CLASSIFICATION, *IMAGE_CONVERSIONS)))


def infer_conversion(config: transformers.PerceiverConfig, shapes: Shapes, source: str) -> HeadlessConversion:
    """Infer the input preprocessor of an encoder, and return the conversion.

    Args:
        config: Hugging Face's configuration.
        shapes: shapes of all weights.
        source: source of the model, for messages.

    Raises:
        UserError: if the weights are not those of an encoder with a known input preprocessor.
    """
    for conversion in CONVERSIONS:
        if conversion.fits(config, shapes):
            return conversion
    known = ", ".join(conversion.preprocessor_of for conversion in CONVERSIONS)
    if any(name.startswith("decoder.") for name in shapes):
        reason = "it has a decoder, whose class is not recorded"
    elif any(name.startswith("input_preprocessor.") for name in shapes):
        reason = "its input preprocessor is not recorded, and the weights do not fit"
    else:
        reason = f"its inputs are arrays of {config.d_model} channels, which no input adapter reads"
    raise UserError(
        f"{source}: {HEADLESS} cannot be converted: {reason} (convert the model with its head, or save it with the "
        f"input preprocessor of {known})"
    )
