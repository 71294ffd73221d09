"""Discovery of plugins, and look-up of what they registered."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Literal, TypeVar, get_args, overload

import pluggy

from perceiver_registry import hooks
from perceiver_registry.errors import PluginError, UnknownNameError, near
from perceiver_registry.specs import AdapterKind, AdapterSpec, DataSpec, ModelSpec, TaskSpec

S = TypeVar("S", AdapterSpec, DataSpec, TaskSpec, ModelSpec)

NOUNS = {
    "input": "input adapter",
    "output": "output adapter",
    "task": "task",
    "data": "data module",
    "model": "model",
}
"""The kinds of specs, and what a person calls them."""

SPEC_TYPES: dict[str, type] = {
    "perceiver_adapters": AdapterSpec,
    "perceiver_tasks": TaskSpec,
    "perceiver_data": DataSpec,
    "perceiver_models": ModelSpec,
}


@dataclass(frozen=True)
class Plugin:
    """Where a spec came from.

    Attributes:
        name: name of the plugin, that of its entry point.
        distribution: name of the installed distribution that declares the entry point.
        version: version of that distribution.
    """

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"plugin {self.name!r} of {self.distribution} {self.version}"


@dataclass(frozen=True)
class Entry(Generic[S]):
    """A registered spec and the plugin that it came from."""

    spec: S
    plugin: Plugin

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def kind(self) -> str:
        return self.spec.kind

    def resolve(self, field: str) -> Any:
        """Imports what the spec's ``field`` (``"adapter"``, ``"config"``, ``"module"``, ...) is the place of.

        Raises:
            PluginError: if it cannot be imported.
        """
        place = getattr(self.spec, field)
        module_name, _, attribute = place.partition(":")
        try:
            return functools.reduce(getattr, attribute.split("."), importlib.import_module(module_name))
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"{NOUNS[self.kind]} {self.name!r} ({self.plugin}): cannot import its {field} {place!r}: {error}"
            ) from error

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` is the registered name, or the name or full path of one of the classes it stands for."""
        if name == self.name:
            return True
        return any(name in (place, place.replace(":", "."), place.partition(":")[2]) for place in self.spec.places)


class Registry:
    """What the installed plugins offer.

    Args:
        points: the entry points to load; None: those of the group ``perceiver`` that are installed.

    Raises:
        PluginError: if a plugin cannot be imported or registers what it must not: something that is no spec of that
            hook, or a name that is taken.
    """

    def __init__(self, points: Iterable[EntryPoint] | None = None):
        self.manager = pluggy.PluginManager(hooks.PROJECT)
        self.manager.add_hookspecs(hooks)
        self._entries: dict[str, dict[str, Entry[Any]]] = {kind: {} for kind in NOUNS}
        for point in entry_points(group=hooks.PROJECT) if points is None else points:
            self._load(point)

    def _load(self, point: EntryPoint) -> None:
        plugin = Plugin(point.name, point.dist.name if point.dist else "?", point.dist.version if point.dist else "?")
        try:
            module = point.load()
        except Exception as error:
            raise PluginError(f"{plugin}: cannot import {point.value!r}: {error}") from error
        self.register(module, plugin)

    def register(self, implementation: object, plugin: Plugin) -> None:
        """Registers the hooks that ``implementation`` (a module or an object) implements, on behalf of ``plugin``."""
        try:
            self.manager.register(implementation, name=plugin.name)
            self.manager.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            raise PluginError(f"{plugin}: {error}") from error
        for hook, spec_type in SPEC_TYPES.items():
            callers = [
                caller for caller in getattr(self.manager.hook, hook).get_hookimpls() if caller.plugin is implementation
            ]
            for caller in callers:
                try:
                    specs = list(caller.function())
                except Exception as error:
                    raise PluginError(f"{plugin}: {hook} failed: {error!r}") from error
                for spec in specs:
                    if not isinstance(spec, spec_type):
                        raise PluginError(f"{plugin}: {hook} returned {spec!r}, which is no {spec_type.__name__}")
                    self._add(Entry(spec, plugin))

    def _add(self, entry: Entry[Any]) -> None:
        if isinstance(entry.spec, AdapterSpec) and entry.kind not in get_args(AdapterKind):
            kinds = " or ".join(get_args(AdapterKind))
            raise PluginError(f"{entry.plugin}: adapter {entry.name!r} has kind {entry.kind!r}, which must be {kinds}")
        taken = self._entries[entry.kind].setdefault(entry.name, entry)
        if taken is not entry:
            raise PluginError(
                f"{NOUNS[entry.kind]} {entry.name!r} is registered twice: by {taken.plugin} and by {entry.plugin}"
            )

    @overload
    def entries(self, kind: Literal["input", "output"]) -> list[Entry[AdapterSpec]]: ...
    @overload
    def entries(self, kind: Literal["task"]) -> list[Entry[TaskSpec]]: ...
    @overload
    def entries(self, kind: Literal["data"]) -> list[Entry[DataSpec]]: ...
    @overload
    def entries(self, kind: Literal["model"]) -> list[Entry[ModelSpec]]: ...
    def entries(self, kind: str) -> list[Any]:
        """All that is registered of a kind ("input", "output", "task", "data" or "model"), by name."""
        return sorted(self._entries[kind].values(), key=lambda entry: entry.name)

    @overload
    def get(self, kind: Literal["input", "output"], name: str) -> Entry[AdapterSpec]: ...
    @overload
    def get(self, kind: Literal["task"], name: str) -> Entry[TaskSpec]: ...
    @overload
    def get(self, kind: Literal["data"], name: str) -> Entry[DataSpec]: ...
    @overload
    def get(self, kind: Literal["model"], name: str) -> Entry[ModelSpec]: ...
    def get(self, kind: Any, name: str) -> Any:
        """The entry of a kind that answers to ``name``: its registered name, or the name or path of its class.

        Raises:
            UnknownNameError: if there is none; the message says which names are near.
        """
        found = self.find(kind, name)
        if found is None:
            names: Sequence[str] = [entry.name for entry in self.entries(kind)]
            if name[:1].isupper():  # written like a class: compare it with classes
                names = [place.partition(":")[2] for entry in self.entries(kind) for place in entry.spec.places]
            raise UnknownNameError(f"unknown {NOUNS[kind]} {name!r}; {near(name, names)}")
        return found

    def find(self, kind: Any, name: str) -> Entry[Any] | None:
        """As :meth:`get`, but None if there is no such entry."""
        exact = self._entries[kind].get(name)
        return exact or next((entry for entry in self.entries(kind) if entry.answers_to(name)), None)

    def adapter_of(self, kind: Literal["input", "output"], config: object) -> Entry[AdapterSpec]:
        """The adapter that the type of ``config`` selects.

        Raises:
            UnknownNameError: if no plugin registered that type.
        """
        config_type = type(config)
        for entry in self.entries(kind):
            # A config of that type exists, so the module that the spec names is imported if the spec means this type.
            module_name, _, attribute = entry.spec.config.partition(":")
            if getattr(sys.modules.get(module_name), attribute, None) is config_type:
                return entry
        raise UnknownNameError(
            f"no plugin registers an {NOUNS[kind]} for {config_type.__module__}.{config_type.__qualname__}"
        )


@functools.cache
def registry() -> Registry:
    """The registry of what is installed, discovered at the first call."""
    return Registry()
