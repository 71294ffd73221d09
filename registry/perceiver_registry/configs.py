"""Model configurations as plain data, in which encoder and decoder name their adapters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import MISSING, asdict, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from perceiver_registry.errors import UserError, near
from perceiver_registry.option_types import has_type, requirement
from perceiver_registry.registry import registry
from perceiver_registry.specs import DEFAULT_ARCHITECTURE

if TYPE_CHECKING:
    from perceiver_core import ModelConfig

ADAPTER_KEY = "adapter"
"""Key of the adapter's name in a plain encoder or decoder config."""

ARCHITECTURE_KEY = "architecture"
"""Key of the architecture's name in a plain model config. Absent: :data:`DEFAULT_ARCHITECTURE`."""

PARTS = {"encoder": "input", "decoder": "output"}
"""Kinds of adapters by the part of a model that they belong to."""


def config_types(encoder: str, decoder: str, architecture: str | None = None) -> dict[str, Any]:
    """Return the config dataclasses of a model with two adapters, by dotted name (``"model.encoder"``).

    Args:
        encoder: name of the input adapter.
        decoder: name of the output adapter.
        architecture: name of the architecture. None: the default architecture.

    Raises:
        UnknownNameError: if an adapter or the architecture does not exist.
    """
    return {
        "model": model_config_type(architecture),
        "model.encoder": registry().get("input", encoder).resolve("config"),
        "model.decoder": registry().get("output", decoder).resolve("config"),
    }


def model_config_type(architecture: str | None = None) -> type[ModelConfig[Any, Any]]:
    """Return the config dataclass of an architecture.

    Args:
        architecture: its name. None: the default architecture.

    Raises:
        UnknownNameError: if it does not exist.
    """
    config_type: type[ModelConfig[Any, Any]] = (
        registry().get("architecture", architecture or DEFAULT_ARCHITECTURE).resolve("config")
    )
    return config_type


def unused_options(architecture: str | None, others: Iterable[str] = ()) -> frozenset[str]:
    """Return the dotted names of other architectures' options that an architecture does not have.

    Args:
        architecture: name of the architecture. None: the default architecture.
        others: names of other architectures, besides the default one.

    Raises:
        UnknownNameError: if one does not exist.
    """
    config_type = model_config_type(architecture)
    known = {field.name for field in fields(config_type)}
    named = {field.name for other in (DEFAULT_ARCHITECTURE, *others) for field in fields(model_config_type(other))}
    of_parts = (f"model.{part}.{name}" for part in PARTS for name in config_type.unused_fields(part))
    return frozenset((*(f"model.{name}" for name in named - known), *of_parts))


def model_fields() -> tuple[str, ...]:
    """Return the names of the fields of ``PerceiverConfig``, which are arguments of Lightning modules as well."""
    from perceiver_core import PerceiverConfig

    return tuple(field.name for field in fields(PerceiverConfig))


def config_to_dict(config: ModelConfig[Any, Any], full_names: bool = False) -> dict[str, Any]:
    """Convert a configuration to plain data: nested dicts in which encoder and decoder name their adapters.

    Other architectures than the default one are named under ``"architecture"``. Fields that an architecture does not
    use are left out.

    Args:
        config: the configuration.
        full_names: include distributions in the names of adapters (``perceiver-zoo:text``), for storage: plugins that
            are installed later may register the same name. False: only for names of several distributions.
    """
    plain, name = asdict(config), full_name if full_names else short_name
    architecture = registry().architecture_of(config)
    if architecture.full_name != DEFAULT_ARCHITECTURE:
        plain = {ARCHITECTURE_KEY: name("architecture", architecture.full_name), **plain}
    for part, kind in PARTS.items():
        entry, unused = registry().adapter_of(kind, getattr(config, part)), config.unused_fields(part)  # type: ignore[arg-type]
        used = {field: value for field, value in plain[part].items() if field not in unused}
        named = {ADAPTER_KEY: entry.full_name, **used}
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


def config_from_dict(plain: Mapping[str, Any]) -> ModelConfig[Any, Any]:
    """Create a configuration from the plain data of :func:`config_to_dict`.

    Returns:
        A configuration of the type of the architecture that the data names: a ``PerceiverConfig`` without a name.

    Raises:
        UserError: if a field is unknown or missing; the message suggests similar names.
        UnknownNameError: if an adapter or the architecture is not installed.
        ValueError: if a value is out of range.
    """
    plain = dict(plain)
    model_type = model_config_type(plain.pop(ARCHITECTURE_KEY, None))
    types: dict[str, type] = {"model": model_type}
    for part, kind in PARTS.items():
        plain[part] = dict(plain.get(part) or {})
        if ADAPTER_KEY not in plain[part]:
            raise UserError(f"the model's {part} names no {ADAPTER_KEY}")
        types[part] = registry().get(kind, plain[part].pop(ADAPTER_KEY)).resolve("config")  # type: ignore[call-overload]
    for part, values in (("model", plain), *((part, plain[part]) for part in PARTS)):
        _check_parts(part, values, types)
    parts = {part: create_config(types[part], plain[part], part, model_type.unused_fields(part)) for part in PARTS}
    config: ModelConfig[Any, Any] = create_config(model_type, plain | parts, "model")
    return config


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


def create_config(
    config_type: type, values: Mapping[str, Any], where: str, unused: Collection[str] = frozenset()
) -> Any:
    """Create a configuration.

    Args:
        config_type: its dataclass.
        values: values by field.
        where: name of the configuration in error messages.
        unused: fields that the architecture does not use.

    Raises:
        UserError: if a field is unknown or missing; the message suggests similar names.
        ValueError: if a value is out of range or of another type than its field.
    """
    known = {field.name: field for field in fields(config_type) if field.name not in unused}
    for name in values:
        if name in unused:
            raise UserError(f"{where}.{name}: has no effect in this architecture (leave it out)")
        if name not in known:
            raise UserError(f"{where} has no field {name!r}; {near(name, known)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UserError(f"{where} needs a value for {name!r}")
    _check_types(config_type, values)
    return config_type(**values)


def _check_types(config_type: type, values: Mapping[str, Any]) -> None:
    """Raise ValueError if a value does not have the type of its field; fields of classes are not checked."""
    try:
        hints = get_type_hints(config_type)
    except NameError:  # a type that is imported for type checkers alone
        return
    for name, value in values.items():
        if name in hints and not has_type(hints[name], value):
            raise ValueError(f"{config_type.__name__}.{name}: {requirement(hints[name], value)}")
