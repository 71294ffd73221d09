"""Arguments of Lightning modules: the fields of a model's config, and the config itself."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, ParamSpec

from perceiver_core import ModelConfig, PerceiverConfig
from perceiver_registry import UserError, config_from_dict
from perceiver_registry.configs import model_fields

P = ParamSpec("P")

CONFIG = "config"
"""Name of the argument that is a whole config."""

GIVEN_CONFIG = "_given_config"
"""Attribute of a Lightning module under construction: a config of another architecture than Perceiver IO."""

EARLIER_ORDER = (CONFIG, "optimizer", "lr_scheduler", "task", "ema_decay", "patience")
"""Positional arguments of ``LitX(config, ...)``, the deprecated form."""

ARGUMENT_DOCS = re.compile(r"^    (\w+): .*\n?(?: {5,}.*\n?)*", re.MULTILINE)
"""Pattern of the documentation of one argument in a docstring."""


def model_arguments(config: PerceiverConfig[Any, Any]) -> dict[str, Any]:
    """Return the arguments of a Lightning module for a model's config: one for each field."""
    return {field.name: getattr(config, field.name) for field in fields(config)}


def takes_config(init: Callable[..., None]) -> bool:
    """Return whether an ``__init__`` declares a whole config as an argument, as modules for interface 1 do."""
    return CONFIG in inspect.signature(init).parameters


def accept_config(init: Callable[P, None]) -> Callable[P, None]:
    """Decorate an ``__init__`` that takes the fields of a config to accept the config as well.

    Checkpoints contain the config as plain data, which ``load_from_checkpoint`` passes as ``config``. Configs of other
    architectures, whose fields are not arguments, are passed to the base class as a whole. A
    :class:`~perceiver_core.PerceiverConfig` is accepted for one more release, with a ``DeprecationWarning``.

    Args:
        init: ``__init__`` of a Lightning module. If it declares ``config``, it is returned unchanged.
    """
    if takes_config(init):
        return init

    @functools.wraps(init)
    def accepting(self: Any, *args: Any, **kwargs: Any) -> None:
        config = args[0] if args else kwargs.get(CONFIG)
        if not isinstance(config, ModelConfig | Mapping):
            init(self, *args, **kwargs)
            return
        options = kwargs | dict(zip(EARLIER_ORDER, args, strict=False))
        del options[CONFIG]
        if isinstance(config, Mapping):
            options = _accepted(init, _arguments(self, config_from_dict(config), options))
        else:
            if isinstance(config, PerceiverConfig):
                name = type(self).__name__
                warnings.warn(f"{name}(config) is deprecated: use {name}.create(config)", DeprecationWarning, 2)
            options = _arguments(self, config, options)
        init(self, **options)

    return accepting  # type: ignore[return-value]


def _arguments(module: Any, config: ModelConfig[Any, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a module for a config and other options; store a config of another architecture in it.

    Raises:
        UserError: if an option is a field of Perceiver IO, and the config is of another architecture.
    """
    if isinstance(config, PerceiverConfig):
        return {**model_arguments(config), **options}
    for name in options:
        if name in model_fields():
            raise UserError(f"{name}: set it in {type(config).__name__}, if it has this field")
    vars(module)[GIVEN_CONFIG] = config
    return {"encoder": config.encoder, "decoder": config.decoder, **options}


def _accepted(function: Callable[..., None], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that a function declares, as Lightning does for the arguments in a checkpoint."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(arguments)
    return {name: value for name, value in arguments.items() if name in parameters}


def complete_docs(cls: type, base: type) -> None:
    """Add a base class's documentation of arguments to the docstring of a subclass, for its help.

    Args:
        cls: the subclass, whose ``__doc__`` is changed, unless it has no section of arguments.
        base: the base class.
    """
    before, section, own = inspect.cleandoc(cls.__doc__ or "").partition("Args:\n")
    documented = {entry[1] for entry in ARGUMENT_DOCS.finditer(own)}
    missing = inspect.signature(cls).parameters.keys() - documented
    arguments, blank, after = own.partition("\n\n")
    shared = inspect.cleandoc(base.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0]
    added = "".join(f"\n{entry[0].rstrip()}" for entry in ARGUMENT_DOCS.finditer(shared) if entry[1] in missing)
    if section:
        cls.__doc__ = f"{before}{section}{arguments}{added}{blank}{after}"
