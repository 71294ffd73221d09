"""Assembly of models from configurations. Torch is imported inside functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

from perceiver_registry.configs import config_from_dict
from perceiver_registry.errors import UnknownNameError, UserError
from perceiver_registry.registry import registry
from perceiver_registry.specs import DEFAULT_ARCHITECTURE

if TYPE_CHECKING:
    from perceiver_core import InputAdapter, Model, ModelConfig, OutputAdapter, PerceiverConfig, PerceiverIO


def build_adapters(config: ModelConfig[Any, Any]) -> tuple[InputAdapter, OutputAdapter]:
    """Build the two adapters that the types of ``config.encoder`` and ``config.decoder`` select.

    Raises:
        UnknownNameError: if no plugin registered one of the types.
    """
    input_adapter = registry().adapter_of("input", config.encoder).resolve("adapter").from_config(config.encoder)
    output_adapter = (
        registry().adapter_of("output", config.decoder).resolve("adapter").from_config(config.decoder, input_adapter)
    )
    return input_adapter, output_adapter


@overload
def assemble(config: PerceiverConfig) -> PerceiverIO: ...
@overload
def assemble(config: ModelConfig[Any, Any]) -> Model: ...
def assemble(config: ModelConfig[Any, Any]) -> Model:
    """Build the model of a configuration, from any registered architecture, input adapter and output adapter.

    Raises:
        UnknownNameError: if no plugin registered the type of the config, or of its encoder or decoder config.
        UserError: if ``config.params`` or ``config.encoder.params`` cannot be loaded.
    """
    from perceiver_registry.params import load_pretrained

    model: Model = registry().architecture_of(config).resolve("model")(config, *build_adapters(config))
    load_pretrained(model)
    return model


def require_perceiver_io(config: ModelConfig[Any, Any], what: str) -> PerceiverConfig[Any, Any]:
    """Check that a model is a Perceiver IO, for functions that use its encoder and decoder.

    Args:
        config: config of the model.
        what: flag, file or function that needs it, the beginning of the message.

    Returns:
        The config.

    Raises:
        UserError: if it has another architecture.
    """
    entry = registry().architecture_of(config)
    if entry.full_name != DEFAULT_ARCHITECTURE:
        raise UserError(f"{what}: needs a model of architecture 'perceiver-io', got {registry().short_name(entry)!r}")
    perceiver_config: Any = config
    return perceiver_config


def create_module(task: str, config: ModelConfig[Any, Any] | Mapping[str, Any], **options: Any) -> Any:
    """Create the Lightning module of a task.

    Args:
        task: name of a registered task.
        config: the model's configuration, a ModelConfig or plain data.
        options: further arguments of the task's module, such as its optimizer.

    Raises:
        UnknownNameError: if the task, or an adapter of the configuration, does not exist.
    """
    entry = registry().get("task", task)
    config = config_from_dict(config) if isinstance(config, Mapping) else config
    return entry.resolve("module").create(config, task=registry().short_name(entry), **options)


def own_task(module_type: Any) -> str:
    """Return the short name of a Lightning module's task, or its attribute ``task`` if that is not registered."""
    try:
        return registry().short_name(registry().task_of(module_type))
    except UnknownNameError:
        return module_type.task
