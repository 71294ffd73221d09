"""Registry of the installed adapters, architectures, tasks, data modules, models and formats, without torch."""

from perceiver_registry.assemble import assemble, build_adapters, create_module
from perceiver_registry.checkpoint import describe, read_checkpoint
from perceiver_registry.configs import config_from_dict, config_to_dict
from perceiver_registry.description import ModelDescription
from perceiver_registry.errors import AmbiguousNameError, PluginError, UnknownNameError, UserError
from perceiver_registry.formats import Format, LoadedModel, read_model, write_model
from perceiver_registry.hooks import hookimpl
from perceiver_registry.migrations import Migration
from perceiver_registry.params import load_params, load_pretrained
from perceiver_registry.plugins import INTERFACE_VERSION, LoadedPlugin, Plugin
from perceiver_registry.registry import Entry, Registry, registry
from perceiver_registry.sizing import SizedDefaults
from perceiver_registry.specs import (
    AdapterSpec,
    ArchitectureSpec,
    DataSpec,
    FormatSpec,
    MigrationSpec,
    ModelSpec,
    TaskSpec,
)
from perceiver_registry.zoo import create_model, from_hugging_face, list_models, load_model, to_hugging_face

__all__ = [
    "INTERFACE_VERSION",
    "AdapterSpec",
    "AmbiguousNameError",
    "ArchitectureSpec",
    "DataSpec",
    "Entry",
    "Format",
    "FormatSpec",
    "LoadedModel",
    "LoadedPlugin",
    "Migration",
    "MigrationSpec",
    "ModelDescription",
    "ModelSpec",
    "Plugin",
    "PluginError",
    "Registry",
    "SizedDefaults",
    "TaskSpec",
    "UnknownNameError",
    "UserError",
    "assemble",
    "build_adapters",
    "config_from_dict",
    "config_to_dict",
    "create_model",
    "create_module",
    "describe",
    "from_hugging_face",
    "hookimpl",
    "list_models",
    "load_model",
    "load_params",
    "load_pretrained",
    "read_checkpoint",
    "read_model",
    "registry",
    "to_hugging_face",
    "write_model",
]
