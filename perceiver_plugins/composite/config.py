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

OF_THE_ENCODER = {field.name for field in fields(EncoderConfig)} - {"init_scale"}
"""Fields that are no input adapter's own: there is one encoder for all inputs."""


@dataclass
class CompositeEncoderConfig(EncoderConfig):
    """An encoder of several inputs of any kind as one (Perceiver IO, arXiv 2107.14795, "Multimodal autoencoding").

    Args:
        inputs: the input adapters by the names of their modalities, each with its registered name under ``adapter``
            and its own fields: ``{"image": {"adapter": "image-pixels", "num_channels": 1}, "text": {"adapter":
            "text", "vocab_size": 262}}``. ``init_scale`` is the composite's where it is not among them.
        min_padding: channels of the modality embedding of the widest input. The others' embeddings are longer, so
            that all inputs have the same number of channels in the end.
        mask_probabilities: modalities of which each place is hidden from the encoder with a probability in training:
            ``{"text": 0.15}``. In evaluation nothing is hidden, but with a probability of 1 it always is.
    """

    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    min_padding: int = 4
    mask_probabilities: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "min_padding")
        require(bool(self.inputs), self, "inputs", "must name at least one input adapter")
        for modality, probability in self.mask_probabilities.items():
            require(modality in self.inputs, self, "mask_probabilities", f"there is no input {modality!r}")
            require(0 <= probability <= 1, self, "mask_probabilities", "must be from 0 to 1")
        self.part_configs()  # so that what is wrong with one shows at once

    def part_configs(self) -> dict[str, EncoderConfig]:
        """The configuration of each input adapter, by modality.

        Raises:
            UserError: if a part names no adapter, or has a field that is not its adapter's own.
            UnknownNameError: if an adapter is not installed.
            ValueError: if a value is out of range or of another type, or a modality cannot be called that.
        """
        return {modality: self._part_config(modality, part) for modality, part in self.inputs.items()}

    def _part_config(self, modality: str, part: Mapping[str, Any]) -> EncoderConfig:
        where = f"encoder.inputs.{modality}"
        if not modality.isidentifier() or modality in dir(nn.ModuleDict()):
            raise ValueError(f"{where}: not a name for a modality; choose another one, of letters, digits and _")
        adapter = part.get(ADAPTER_KEY) if isinstance(part, Mapping) else None
        if not isinstance(adapter, str):
            raise UserError(f"{where} names no {ADAPTER_KEY}; write {{{modality}: {{{ADAPTER_KEY}: NAME, ...}}}}")
        values = {name: value for name, value in part.items() if name != ADAPTER_KEY}
        if shared := OF_THE_ENCODER.intersection(values):
            name = min(shared)
            raise UserError(f"{where}.{name}: there is one encoder for all inputs; set encoder.{name}")
        try:
            config_type = registry().get("input", adapter).resolve("config")
            values = _of_their_types(config_type, values)
            return create_config(config_type, {"init_scale": self.init_scale, **values}, where)
        except UnknownNameError as error:
            raise UnknownNameError(f"{where}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _of_their_types(config_type: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as the fields of a dataclass want them, such as a tuple where plain data has a list.

    The command checks the types of all other flags, but not of what lies within a dict.

    Raises:
        ValueError: if one is of another type.
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
