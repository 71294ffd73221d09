"""Model configurations as plain data, in which encoder and decoder name their adapters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any

from perceiver_registry.errors import UserError, near
from perceiver_registry.registry import registry

if TYPE_CHECKING:
    from perceiver_core import PerceiverConfig

ADAPTER_KEY = "adapter"
"""Key of the adapter's name in a plain encoder or decoder config."""

PARTS = {"encoder": "input", "decoder": "output"}
"""Kinds of adapters by the part of a model that they belong to."""


def config_types(encoder: str, decoder: str) -> dict[str, type]:
    """Return the config dataclasses of a model with two adapters, by dotted name (``"model.encoder"``).

    Args:
        encoder: name of the input adapter.
        decoder: name of the output adapter.

    Raises:
        UnknownNameError: if an adapter does not exist.
    """
    from perceiver_core import PerceiverConfig

    return {
        "model": PerceiverConfig,
        "model.encoder": registry().get("input", encoder).resolve("config"),
        "model.decoder": registry().get("output", decoder).resolve("config"),
    }


def model_fields() -> tuple[str, ...]:
    """Return the names of the fields of ``PerceiverConfig``, which are arguments of Lightning modules as well."""
    from perceiver_core import PerceiverConfig

    return tuple(field.name for field in fields(PerceiverConfig))


def config_to_dict(config: PerceiverConfig, full_names: bool = False) -> dict[str, Any]:
    """Convert a configuration to plain data: nested dicts in which encoder and decoder name their adapters.

    Args:
        config: the configuration.
        full_names: include distributions in the names of adapters (``perceiver-zoo:text``), for storage: plugins that
            are installed later may register the same name. False: only for names of several distributions.
    """
    plain = asdict(config)
    for part, kind in PARTS.items():
        entry = registry().adapter_of(kind, getattr(config, part))  # type: ignore[arg-type]
        named = {ADAPTER_KEY: entry.full_name, **plain[part]}
        name = full_name if full_names else short_name
        plain[part] = with_names(named, lambda written, kind=kind, name=name: name(kind, written))  # type: ignore[misc]
    return plain


def short_name(kind: str, name: str) -> str:
    """Return the shortest unique name of an entry, or ``name`` itself if it is not registered."""
    entry = registry().find(kind, name)
    return name if entry is None else registry().short_name(entry)


def full_name(kind: str, name: str) -> str:
    """Return the name of an entry with its distribution, which stays unique when other plugins are installed.

    Entries of local files keep their short names, since the same plugin may be installed later.
    """
    entry = registry().find(kind, name)
    return short_name(kind, name) if entry is None or entry.plugin.is_local else entry.full_name


def with_names(plain: Mapping[str, Any], rename: Callable[[str], str]) -> dict[str, Any]:
    """Return a plain encoder or decoder configuration with renamed adapters, nested ones included."""
    return {
        key: with_names(value, rename)
        if isinstance(value, Mapping)
        else rename(value)
        if key == ADAPTER_KEY and isinstance(value, str)
        else value
        for key, value in plain.items()
    }


def config_from_dict(plain: Mapping[str, Any]) -> PerceiverConfig:
    """Create a configuration from the plain data of :func:`config_to_dict`.

    Raises:
        UserError: if a field is unknown or missing; the message suggests similar names.
        UnknownNameError: if an adapter is not installed.
        ValueError: if a value is out of range.
    """
    from perceiver_core import PerceiverConfig

    plain, types = dict(plain), {"model": PerceiverConfig}
    for part, kind in PARTS.items():
        plain[part] = dict(plain.get(part) or {})
        if ADAPTER_KEY not in plain[part]:
            raise UserError(f"the model's {part} names no {ADAPTER_KEY}")
        types[part] = registry().get(kind, plain[part].pop(ADAPTER_KEY)).resolve("config")  # type: ignore[call-overload]
    for part, values in (("model", plain), *((part, plain[part]) for part in PARTS)):
        _check_parts(part, values, types)
    return create_config(
        PerceiverConfig, plain | {part: create_config(types[part], plain[part], part) for part in PARTS}, "model"
    )


def _check_parts(part: str, values: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """Check that no field of one part of a model is set on another part.

    Raises:
        UserError: if one is; the message names the right part.
    """
    owners = {owner: {field.name for field in fields(config_type)} for owner, config_type in types.items()}
    for name in values.keys() - owners[part]:
        meant = [
            f"{name}=..." if owner == "model" else f"{owner}={{{name!r}: ...}}"
            for owner, known in owners.items()
            if name in known
        ]
        if meant:
            raise UserError(f"{part} has no field {name!r}; did you mean {' or '.join(meant)}?")


def create_config(config_type: type, values: Mapping[str, Any], where: str) -> Any:
    """Create a configuration.

    Args:
        config_type: its dataclass.
        values: values by field.
        where: name of the configuration in error messages.

    Raises:
        UserError: if a field is unknown or missing; the message suggests similar names.
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
