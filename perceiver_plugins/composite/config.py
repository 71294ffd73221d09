"""Configuration of the composite input adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from torch import nn

from perceiver_core.config import EncoderConfig, require, require_positive
from perceiver_registry import UnknownNameError, UserError, registry
from perceiver_registry.configs import ADAPTER_KEY, create_config
from perceiver_registry.option_types import ConversionError, convert

ENCODER_FIELDS = {field.name for field in fields(EncoderConfig)} - {"init_scale"}
"""Fields of the encoder that all inputs share, which an input's configuration cannot have."""


@dataclass
class CompositeEncoderConfig(EncoderConfig):
    """Encoder of several inputs as one (Perceiver IO, arXiv 2107.14795, "Multimodal autoencoding").

    Args:
        inputs: input adapters by modality, each with its registered name under ``adapter`` and its fields:
            ``{"image": {"adapter": "image-pixels", "num_channels": 1}, "text": {"adapter": "text", "vocab_size":
            262}}``. ``init_scale`` defaults to that of this configuration.
        min_padding: channels of the modality embedding of the widest input. Embeddings of the others are longer and
            pad all inputs to the same number of channels.
        mask_probabilities: probabilities, by modality, of masking an input position in training: ``{"text": 0.15}``.
            A probability of 1 masks all positions in evaluation as well; any other value masks nothing in evaluation.
        optional_inputs: modalities that examples may lack. Their nested batch has the entry ``missing`` (b,), bool: a
            learned vector replaces the input of the examples with True.
    """

    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    min_padding: int = 4
    mask_probabilities: dict[str, float] = field(default_factory=dict)
    optional_inputs: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "min_padding")
        require(bool(self.inputs), self, "inputs", "must name at least one input adapter")
        for modality, probability in self.mask_probabilities.items():
            require(modality in self.inputs, self, "mask_probabilities", f"no such input: {modality!r}")
            require(0 <= probability <= 1, self, "mask_probabilities", "must be from 0 to 1")
        for modality in self.optional_inputs:
            require(modality in self.inputs, self, "optional_inputs", f"no such input: {modality!r}")
        self.part_configs()  # checks them

    def part_configs(self) -> dict[str, EncoderConfig]:
        """Return the configuration of each input adapter, by modality.

        Raises:
            UserError, ValueError: as :func:`create_part_configs`.
        """
        return create_part_configs(self.inputs, self.init_scale, "encoder.inputs")


def create_part_configs(
    inputs: Mapping[str, Mapping[str, Any]], init_scale: float, flag: str
) -> dict[str, EncoderConfig]:
    """Create the configurations of input adapters that share one encoder.

    Args:
        inputs: name and fields of each adapter, by modality: ``{"text": {"adapter": "text", "vocab_size": 262}}``.
        init_scale: ``init_scale`` of adapters whose fields lack it.
        flag: name of the option ``inputs``, for messages.

    Raises:
        UserError: if an input names no adapter, or has a field that is not its adapter's.
        UnknownNameError: if an adapter is not installed.
        ValueError: if a value is out of range or of another type, or if the name of a modality is invalid.
    """
    return {
        modality: _create_part_config(modality, part, init_scale, f"{flag}.{modality}")
        for modality, part in inputs.items()
    }


def is_modality_name(name: str) -> bool:
    """Return whether a name is valid for a modality."""
    return name.isidentifier() and name not in dir(nn.ModuleDict())


def _create_part_config(modality: str, part: Mapping[str, Any], init_scale: float, flag: str) -> EncoderConfig:
    if not is_modality_name(modality):
        raise ValueError(f"{flag}: invalid name of a modality (use letters, digits and _)")
    adapter = part.get(ADAPTER_KEY) if isinstance(part, Mapping) else None
    if not isinstance(adapter, str):
        raise UserError(f"{flag}: {ADAPTER_KEY} is missing (write {{{modality}: {{{ADAPTER_KEY}: NAME, ...}}}})")
    values = {name: value for name, value in part.items() if name != ADAPTER_KEY}
    if shared := ENCODER_FIELDS.intersection(values):
        name = min(shared)
        raise UserError(f"{flag}.{name}: not a field of an input, all of which share one encoder (set encoder.{name})")
    try:
        config_type = registry().get("input", adapter).resolve("config")
        values = _convert_values(config_type, values)
        config: EncoderConfig = create_config(config_type, {"init_scale": init_scale, **values}, flag)
        return config
    except UnknownNameError as error:
        raise UnknownNameError(f"{flag}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{flag}: {error}") from error


def _convert_values(config_type: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert plain data to the types of a dataclass's fields, such as lists to tuples.

    The command converts all other flags, but not the values in a dict.

    Raises:
        ValueError: if a value cannot be converted.
    """
    hints = get_type_hints(config_type)
    typed = dict(values)
    for name, value in values.items():
        if name in hints:
            try:
                typed[name] = convert(hints[name], value)
            except ConversionError as error:
                raise ValueError(f"{name}: {error}") from error
    return typed
