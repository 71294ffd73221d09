"""Subjects of checks: an adapter in a small model, or a plugin."""

from __future__ import annotations

import functools
import importlib
import itertools
import tempfile
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from perceiver_core import InputAdapter, ModelConfig, PerceiverConfig, PerceiverIO
from perceiver_registry import hooks
from perceiver_registry.configs import create_config
from perceiver_registry.errors import AmbiguousNameError, UnknownNameError, UserError, near
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.plugins import LOCAL, Plugin, load
from perceiver_registry.registry import NOUNS, registry
from perceiver_registry.specs import AdapterKind, AdapterSpec, ArchitectureSpec, DataSpec
from perceiver_registry.testing.batches import clone
from perceiver_registry.testing.partners import NUMBERS, VECTORS

PARTS = {"input": "encoder", "output": "decoder"}
"""Parts of a model by the kind of their adapter."""

ADAPTER_FLAGS: dict[AdapterKind, str] = {"input": "model.encoder", "output": "model.decoder"}
"""Flags that name an adapter, by kind."""

SECTIONS = {"input": "model.encoder.", "output": "model.decoder."}
"""Prefixes of the flags of an adapter's config, by kind."""

SMALL: dict[str, dict[str, Any]] = {
    "input": {
        "num_cross_attention_heads": 1,
        "num_cross_attention_qk_channels": 16,
        "num_self_attention_heads": 2,
        "num_self_attention_layers_per_block": 1,
        "init_scale": 0.2,
    },
    "output": {"num_cross_attention_heads": 1, "num_cross_attention_qk_channels": 16, "init_scale": 0.2},
}
"""Config values of small models, by kind. ``init_scale`` is large enough that gradients do not vanish."""

NUM_LATENTS, NUM_LATENT_CHANNELS = 4, 16

BATCH_SIZE = 3


class ModelSubject:
    """Base class of subjects that are tested in a small model."""

    def model(self, seed: int = 0) -> Any:
        """Create the model in evaluation mode, with seeded weights."""
        raise NotImplementedError

    def batch(self, batch_size: int = BATCH_SIZE, seed: int = 0) -> Any:
        """Create a seeded batch for the model."""
        if (batch_size, seed) not in self._batches:
            generator = torch.Generator().manual_seed(seed)
            self._batches[batch_size, seed] = self.model().input_adapter.example_batch(batch_size, generator)
        return clone(self._batches[batch_size, seed])

    @functools.cached_property
    def _batches(self) -> dict[tuple[int, int], Any]:
        return {}


class AdapterSubject(ModelSubject):
    """An adapter with its spec's example config, in a small model.

    Args:
        spec: spec of the adapter, registered or not.
        example: values by dotted flag that override the spec's example.
        partner: input adapter to combine an output adapter with. None: chosen as in
            :func:`~perceiver_registry.testing.check_adapter`.
    """

    def __init__(self, spec: AdapterSpec, example: Mapping[str, Any], partner: AdapterSpec | None = None):
        self.spec = spec
        self.kind = spec.kind
        self.example = {**spec.example, **example}
        self.section = SECTIONS.get(spec.kind, "model.")
        self._partner = partner

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.spec.name}"

    def __str__(self) -> str:
        return f"{NOUNS.get(self.kind, 'adapter')} {self.spec.name!r}"

    @property
    def adapter_type(self) -> Any:
        return resolve_import_path(self.spec.adapter)

    @property
    def config_type(self) -> Any:
        return resolve_import_path(self.spec.config)

    def config(self, **values: Any) -> Any:
        """Create the example's config with some values changed."""
        return create_config(self.config_type, {**SMALL[self.kind], **self._example_values, **values}, str(self))

    def config_for(self, model_type: type[ModelConfig[Any, Any]]) -> Any:
        """Create the example's config for an architecture, without the fields that it does not use."""
        unused = model_type.unused_fields(PARTS[self.kind])
        values = {**SMALL[self.kind], **self._example_values}
        used = {name: value for name, value in values.items() if name not in unused}
        return create_config(self.config_type, used, str(self))

    @property
    def _example_values(self) -> dict[str, Any]:
        return {flag.removeprefix(self.section): value for flag, value in self.example.items()}

    @functools.cached_property
    def partner(self) -> AdapterSpec:
        """Spec of the adapter of the other kind in the model."""
        if self.kind == "input":
            return NUMBERS
        if self._partner is not None:
            return self._partner
        try:
            partner = AdapterSubject(VECTORS, {})
            self.adapter_type.from_config(self.config(), partner.adapter_type.from_config(partner.config()))
        except (ValueError, UserError):  # it may need a particular input adapter
            entry = registry().find("input", self.spec.name)
            return VECTORS if entry is None else entry.spec
        return VECTORS

    def model(self, seed: int = 0, init: Any = "normal") -> PerceiverIO:
        """Create a model of the adapter and its partner in evaluation mode, with seeded weights."""
        other = AdapterSubject(self.partner, {})
        first, second = (self, other) if self.kind == "input" else (other, self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder, decoder = first.config(), second.config()
            input_adapter = first.adapter_type.from_config(encoder)
            output_adapter = second.adapter_type.from_config(decoder, input_adapter)
            config = PerceiverConfig(encoder, decoder, NUM_LATENTS, NUM_LATENT_CHANNELS, init=init)
            return PerceiverIO(config, input_adapter, output_adapter).eval()

    def adapter(self, model: PerceiverIO) -> Any:
        """Return the adapter of a model."""
        return model.input_adapter if self.kind == "input" else model.output_adapter


class ArchitectureSubject(ModelSubject):
    """An architecture with its spec's example config, in a small model.

    Args:
        spec: spec of the architecture, registered or not.
        encoder: input adapter of the model. None: the registered one that ``example`` names, or a generic one.
        decoder: output adapter of the model. None: likewise.
    """

    kind = "architecture"

    def __init__(self, spec: ArchitectureSpec, encoder: AdapterSpec | None = None, decoder: AdapterSpec | None = None):
        self.spec = spec
        self.encoder = AdapterSubject(encoder or self._named("input") or VECTORS, {})
        self.decoder = AdapterSubject(decoder or self._named("output") or NUMBERS, {})

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.spec.name}"

    def __str__(self) -> str:
        return f"{self.kind} {self.spec.name!r}"

    @property
    def model_type(self) -> Any:
        return resolve_import_path(self.spec.model)

    @property
    def config_type(self) -> Any:
        return resolve_import_path(self.spec.config)

    def _named(self, kind: AdapterKind) -> AdapterSpec | None:
        """Return the adapter that the example names, if any."""
        name = self.spec.example.get(ADAPTER_FLAGS[kind])
        return None if name is None else registry().get(kind, name).spec

    def config(self) -> Any:
        """Create the example's config."""
        example = {
            flag.removeprefix("model."): value
            for flag, value in self.spec.example.items()
            if flag not in ADAPTER_FLAGS.values()
        }
        parts = {
            "encoder": self.encoder.config_for(self.config_type),
            "decoder": self.decoder.config_for(self.config_type),
        }
        return create_config(self.config_type, {**example, **parts}, str(self))

    def adapters(self, config: Any) -> tuple[Any, Any]:
        """Create the adapters of the model."""
        input_adapter = self.encoder.adapter_type.from_config(config.encoder)
        return input_adapter, self.decoder.adapter_type.from_config(config.decoder, input_adapter)

    def model(self, seed: int = 0) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = self.config()
            return self.model_type(config, *self.adapters(config)).eval()

    def adapter(self, model: Any) -> Any:
        """Return the whole model, which is the subject of checks that apply to adapters as well."""
        return model


def example_reader(spec: AdapterSpec, input_adapter: InputAdapter, folder: Path) -> tuple[Any, list[str]] | None:
    """Return the example of an input adapter's reader, the reader and its inputs, or None if it has none."""
    reader_type: Any = resolve_import_path(spec.reader) if spec.reader else None
    try:
        return reader_type.example(input_adapter, folder) if hasattr(reader_type, "example") else None
    except NotImplementedError:
        return None


class PluginSubject:
    """A plugin's module and the specs that its hooks return.

    Args:
        plugin: the module, or the name of its entry point.

    Attributes:
        loaded: the plugin as the registry loads it, with its error if it fails.

    Raises:
        UnknownNameError: if the entry point does not exist.
        AmbiguousNameError: if several distributions have it.
    """

    def __init__(self, plugin: str | ModuleType):
        if isinstance(plugin, ModuleType):
            origin, self.module_name = Plugin(plugin.__name__, plugin.__name__, LOCAL), plugin.__name__
        else:
            origin, self.module_name = _installed(plugin)
        self.loaded = load(origin, functools.partial(importlib.import_module, self.module_name))

        self._folder = tempfile.TemporaryDirectory()  # removed with this object
        self._data_examples: dict[str, Mapping[str, Any] | None] = {}
        self._data: dict[str, Any] = {}
        self._batches: dict[str, list[Any]] = {}

    @property
    def id(self) -> str:
        return self.loaded.plugin.name

    def __str__(self) -> str:
        return f"plugin {self.id!r}"

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(self.module_name)

    def specs(self, kind: str) -> list[Any]:
        """Return the specs of a kind, one of :data:`~perceiver_registry.registry.NOUNS`; none if it fails."""
        return [spec for spec in self.loaded.specs if spec.kind == kind]

    def partner(self, spec: AdapterSpec) -> AdapterSpec | None:
        """Return the input adapter to combine an output adapter with, or None for a generic one.

        It is the default of the plugin's first task with that output adapter or else has the output adapter's name.
        """
        if spec.kind == "input":
            return None
        for task in self.specs("task"):
            if task.defaults.get("model.decoder") == spec.name and "model.encoder" in task.defaults:
                found: AdapterSpec | None = self.find("input", task.defaults["model.encoder"])
                if found is not None:
                    return found
        return next((adapter for adapter in self.specs("input") if adapter.name == spec.name), None)

    def data_example(self, spec: DataSpec) -> Mapping[str, Any] | None:
        """Return arguments of a data module for checks, from the spec or from its class, or None without example."""
        if spec.example is not None:
            return spec.example
        if spec.name not in self._data_examples:
            folder = Path(self._folder.name, spec.name.replace("/", "_"))
            folder.mkdir()
            data_type: Any = resolve_import_path(spec.module)
            try:
                found = data_type.example(folder) if hasattr(data_type, "example") else None
            except NotImplementedError:
                found = None
            self._data_examples[spec.name] = found
        return self._data_examples[spec.name]

    def data(self, spec: DataSpec) -> Any:
        """Return the data module of a spec, created with its example and set up; the same at each call."""
        if spec.name not in self._data:
            data = resolve_import_path(spec.module)(**(self.data_example(spec) or {}))
            data.prepare_data()
            data.setup("fit")
            self._data[spec.name] = data
        return self._data[spec.name]

    def batches(self, spec: DataSpec, count: int) -> list[Any]:
        """Return the first training batches of a data module, at most ``count``; the same at each call."""
        if spec.name not in self._batches:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self._batches[spec.name] = list(itertools.islice(self.data(spec).train_dataloader(), count))
        return self._batches[spec.name]

    def find(self, kind: str, name: str) -> Any:
        """Return the spec of a name, of this plugin or else an installed one, or None."""
        found = next((spec for spec in self.specs(kind) if spec.name == name), None)
        entry = None if found else registry().find(kind, name)
        return entry.spec if entry else found


def _installed(name: str) -> tuple[Plugin, str]:
    """Return an installed plugin and the name of its module."""
    found = {
        Plugin(point.name, point.dist.name, point.dist.version): point.module
        for point in entry_points(group=hooks.PROJECT)
        if point.dist is not None
    }
    distribution, _, short = name.rpartition(":")
    matching = [plugin for plugin in found if plugin.name == short and (not distribution or plugin.is_of(distribution))]
    if not matching:
        raise UnknownNameError(f"unknown plugin {name!r}; {near(short, {plugin.name for plugin in found})}")
    if len(matching) > 1:
        choices = " or ".join(f"{plugin.distribution}:{plugin.name}" for plugin in matching)
        raise AmbiguousNameError(f"several plugins have the name {name!r} (write {choices})")
    return matching[0], found[matching[0]]
