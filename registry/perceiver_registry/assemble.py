"""From configurations to models, and back to plain data. Imports what it needs when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any

from perceiver_registry.errors import UserError, near
from perceiver_registry.registry import registry

if TYPE_CHECKING:
    from perceiver_core import InputAdapter, OutputAdapter, PerceiverConfig, PerceiverIO

ADAPTER_KEY = "adapter"
"""Under this key a plain encoder or decoder config names its adapter."""


def build_adapters(config: PerceiverConfig) -> tuple[InputAdapter, OutputAdapter]:
    """The two adapters that the types of ``config.encoder`` and ``config.decoder`` select.

    Raises:
        UnknownNameError: if no plugin registered one of the types.
    """
    input_adapter = registry().adapter_of("input", config.encoder).resolve("adapter").from_config(config.encoder)
    output_adapter = (
        registry().adapter_of("output", config.decoder).resolve("adapter").from_config(config.decoder, input_adapter)
    )
    return input_adapter, output_adapter


def assemble(config: PerceiverConfig) -> PerceiverIO:
    """The model that ``config`` describes: any registered input adapter with any output adapter.

    Raises:
        UnknownNameError: if no plugin registered the type of the encoder or decoder config.
        UserError: if ``config.params`` or ``config.encoder.params`` cannot be loaded.
    """
    from perceiver_core import PerceiverIO
    from perceiver_registry.params import load_pretrained

    model = PerceiverIO(config, *build_adapters(config))
    load_pretrained(model)
    return model


def create_module(task: str, config: PerceiverConfig | Mapping[str, Any], **options: Any) -> Any:
    """The Lightning module of ``task`` for ``config`` (a PerceiverConfig, or one as plain data).

    Args:
        task: name of a registered task.
        config: the model's configuration.
        options: further arguments of the task's module, such as its optimizer.

    Raises:
        UnknownNameError: if there is no such task, or no adapter for the config.
    """
    entry = registry().get("task", task)
    return entry.resolve("module")(config, task=entry.name, **options)


def config_types(encoder: str, decoder: str) -> dict[str, type]:
    """The dataclasses that a model of two adapters is configured by, by the dotted name of their place in it.

    Args:
        encoder: name of the input adapter.
        decoder: name of the output adapter.

    Raises:
        UnknownNameError: if there is no such adapter.
    """
    from perceiver_core import PerceiverConfig

    return {
        "model": PerceiverConfig,
        "model.encoder": registry().get("input", encoder).resolve("config"),
        "model.decoder": registry().get("output", decoder).resolve("config"),
    }


def config_to_dict(config: PerceiverConfig) -> dict[str, Any]:
    """``config`` as plain data: nested dicts in which encoder and decoder name their adapters."""
    plain = asdict(config)
    for part, kind in (("encoder", "input"), ("decoder", "output")):
        entry = registry().adapter_of(kind, getattr(config, part))  # type: ignore[arg-type]
        plain[part] = {ADAPTER_KEY: entry.name, **plain[part]}
    return plain


def config_from_dict(plain: Mapping[str, Any]) -> PerceiverConfig:
    """The configuration that :func:`config_to_dict` turned into plain data.

    Raises:
        UserError: if a field is unknown or missing; the message says which names are near.
        UnknownNameError: if an adapter that it names is not installed.
        ValueError: if a value is out of range.
    """
    from perceiver_core import PerceiverConfig

    plain = dict(plain)
    for part, kind in (("encoder", "input"), ("decoder", "output")):
        values = dict(plain.get(part) or {})
        if ADAPTER_KEY not in values:
            raise UserError(f"the model's {part} names no {ADAPTER_KEY}")
        entry = registry().get(kind, values.pop(ADAPTER_KEY))  # type: ignore[call-overload]
        plain[part] = create_config(entry.resolve("config"), values, part)
    return create_config(PerceiverConfig, plain, "model")


def create_config(config_type: type, values: Mapping[str, Any], where: str) -> Any:
    """An object of a configuration's dataclass.

    Args:
        config_type: the dataclass.
        values: its fields.
        where: what the values are, for the message of an error.

    Raises:
        UserError: if a field is unknown or missing; the message says which names are near.
        ValueError: if a value is out of range.
    """
    known = {field.name: field for field in fields(config_type)}
    for name in values:
        if name not in known:
            raise UserError(f"{where} has no field {name!r}; {near(name, known)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where} needs a value for {name!r}")
    return config_type(**values)
