"""Python API of the zoo: models by name or by the source of their weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from perceiver_registry.assemble import assemble
from perceiver_registry.configs import ADAPTER_KEY, ARCHITECTURE_KEY, PARTS, config_from_dict
from perceiver_registry.description import ModelDescription
from perceiver_registry.errors import UserError
from perceiver_registry.formats import LoadedModel, read_model
from perceiver_registry.registry import Entry, registry
from perceiver_registry.specs import ModelSpec

if TYPE_CHECKING:
    from perceiver_core import Model, ModelConfig, PerceiverIO

HUGGING_FACE = "perceiver-zoo:huggingface"
"""Full name of the format of transformers' Perceiver classes."""


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """List the names of the installed named models.

    Args:
        pattern: shell-style pattern of names (``"vision*"``).
        pretrained: list only models with published weights.
    """
    return [
        registry().short_name(entry)
        for entry in registry().entries("model")
        if fnmatch.fnmatch(entry.name, pattern) and (entry.spec.params or not pretrained)
    ]


def create_model(name: str, pretrained: bool = False, **overrides: Any) -> Model:
    """Create a named model.

    Args:
        name: a name from :func:`list_models`.
        pretrained: load its published weights.
        overrides: values of fields of its config; ``encoder`` and ``decoder`` are mappings:
            ``create_model("mnist-classifier", num_latents=64, decoder={"num_classes": 26})``.

    Raises:
        UnknownNameError: if the model does not exist.
        UserError: if a field is unknown, or if ``pretrained`` is set and the model has no published weights.
        ValueError: if a value is out of range.
    """
    entry = registry().get("model", name)
    if pretrained and entry.spec.params is None:
        known = ", ".join(list_models(pretrained=True)) or "none"
        raise UserError(f"model {name!r} ({entry.plugin}) has no published weights; models with weights: {known}")
    config: Any = model_config(entry, **overrides)
    return assemble(replace(config, params=entry.spec.params) if pretrained else config)


def model_config(entry: Entry[ModelSpec], **overrides: Any) -> ModelConfig[Any, Any]:
    """Create the configuration of a named model.

    Args:
        entry: the named model.
        overrides: as for :func:`create_model`.

    Raises:
        UserError: if a field is unknown.
        ValueError: if a value is out of range.
    """
    plain: dict[str, Any] = {part: {} for part in PARTS}
    for dotted, value in entry.spec.config.items():
        part, _, field = dotted.partition(".")
        if part == ARCHITECTURE_KEY:
            plain[part] = registry().get("architecture", value, entry.plugin).full_name
        elif part not in PARTS:
            plain[part] = value
        elif field:
            plain[part][field] = value
        else:
            kind = PARTS[part]
            plain[part][ADAPTER_KEY] = registry().get(kind, value, entry.plugin).full_name  # type: ignore[call-overload]
    for field, value in overrides.items():
        plain[field] = {**plain[field], **value} if isinstance(value, Mapping) and field in PARTS else value
    return config_from_dict(plain)


def load_model(source: str) -> Model:
    """Load a model with its weights, in evaluation mode.

    Args:
        source: a checkpoint, a safetensors file of this project, a folder, a hub id, or any other registered format.

    Raises:
        UserError: if ``source`` is not a model.
        PluginError: if it needs a plugin that is not installed.
    """
    return read_model(source).model


def load_weights(name: str, source: str) -> LoadedModel:
    """Load a named model with weights from a source that may lack a description.

    Args:
        name: the named model.
        source: the weights, in any format that can be read.

    Raises:
        UnknownNameError: if the model does not exist.
        UserError: if ``source`` has no weights, or if they do not fit the model.
    """
    entry = registry().get("model", name)
    task = registry().get("task", entry.spec.task, entry.plugin)
    model = create_model(name, params=source).eval()
    return LoadedModel(model, ModelDescription.create(registry().short_name(task), model.config))


def from_hugging_face(model: Any) -> PerceiverIO:
    """Convert a Perceiver of transformers to an equivalent model of this project, with copies of its weights.

    Args:
        model: a model of one of transformers' task classes, such as ``transformers.PerceiverForMaskedLM``.

    Raises:
        UserError: if its class cannot be converted, or if the plugin that converts it is not loaded.
        ValueError: if its configuration cannot be converted.
    """
    return _hugging_face_format().from_hugging_face(model)


def to_hugging_face(model: PerceiverIO) -> Any:
    """Convert a model to an equivalent one of transformers, with copies of its weights.

    Raises:
        UserError: if no class of transformers has its input adapter, or if the plugin that converts it is not loaded.
        ValueError: if none of these classes can represent it; the message lists the differences.
    """
    return _hugging_face_format().to_hugging_face(model)


def _hugging_face_format() -> Any:
    """Return the format of transformers' Perceiver classes, which also converts models in memory."""
    entry = registry().find("format", HUGGING_FACE)
    if entry is None:
        raise UserError(
            f"the plugin that converts models of transformers is not loaded{registry().not_loaded(HUGGING_FACE)}"
        )
    return entry.resolve("format")()
