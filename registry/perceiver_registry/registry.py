"""Look-up of what plugins register."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar, overload

from perceiver_registry.discovery import Selection, discover
from perceiver_registry.errors import AmbiguousNameError, PluginError, UnknownNameError, in_one_line, near
from perceiver_registry.extras import missing_requirement
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.plugins import LoadedPlugin, Plugin, load
from perceiver_registry.specs import AdapterSpec, DataSpec, FormatSpec, MigrationSpec, ModelSpec, TaskSpec

S = TypeVar("S", AdapterSpec, DataSpec, TaskSpec, ModelSpec, FormatSpec, MigrationSpec)

NOUNS = {
    "input": "input adapter",
    "output": "output adapter",
    "task": "task",
    "data": "data module",
    "model": "model",
    "format": "format",
    "migration": "migration",
}
"""The kinds of specs, and what a person calls them."""

LISTED = 3
"""How many plugins an error lists."""


@dataclass(frozen=True)
class Entry(Generic[S]):
    """A registered spec and the plugin that it came from."""

    spec: S
    plugin: Plugin

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def full_name(self) -> str:
        """The name with the distribution, which means this entry whatever else is installed."""
        return f"{self.plugin.distribution}:{self.name}"

    @property
    def kind(self) -> str:
        return self.spec.kind

    def resolve(self, field: str, key: str | None = None) -> Any:
        """Imports what the spec's ``field`` (``"adapter"``, ``"config"``, ``"module"``, ...) is the place of.

        Args:
            field: a place, or a mapping of places.
            key: which one of a mapping.

        Raises:
            PluginError: if it cannot be imported.
        """
        place = getattr(self.spec, field) if key is None else getattr(self.spec, field)[key]
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints must not get into a command's output
                return resolve_import_path(place)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a stranger's module may do anything
            missing = missing_requirement(error, self.plugin.distribution, (self.plugin.name,))
            if missing is not None:
                raise PluginError(f"{NOUNS[self.kind]} {self.name!r}: {missing}") from error
            raise PluginError(
                f"{NOUNS[self.kind]} {self.name!r} ({self.plugin}): cannot import its {field} {place!r}: "
                f"{in_one_line(error)}"
            ) from error

    def answers_to(self, name: str) -> bool:
        """Whether ``name`` is the registered name, or the name or full path of one of the classes it stands for."""
        if name == self.name:
            return True
        return any(name in (path, path.replace(":", "."), path.partition(":")[2]) for path in self.spec.import_paths)


class Registry:
    """What plugins offer.

    A name may be that of several entries if these are of different distributions; then ``distribution:name`` selects
    one, everywhere a name may stand.

    Args:
        plugins: the plugins, as they were loaded. Of one that failed nothing is registered.

    Attributes:
        plugins: all of them.
    """

    def __init__(self, plugins: Iterable[LoadedPlugin] = ()):
        self.plugins: list[LoadedPlugin] = []
        self._entries: dict[str, list[Entry[Any]]] = {kind: [] for kind in NOUNS}
        for loaded in plugins:
            self._add(loaded)

    def register(self, implementation: object, plugin: Plugin) -> None:
        """Registers the hooks that ``implementation`` (a module or an object) implements, on behalf of ``plugin``.

        Raises:
            PluginError: if a hook fails or registers what it must not: something that is no spec of that hook, or a
                name that is taken within the distribution.
        """
        loaded = self._add(load(plugin, lambda: implementation))
        if loaded.error is not None:
            raise PluginError(f"{plugin}: {loaded.error}") from loaded.error

    def _add(self, loaded: LoadedPlugin) -> LoadedPlugin:
        everything = [entry for kind in NOUNS for entry in self._entries[kind]]
        taken = {
            (entry.kind, entry.name): entry.plugin
            for entry in everything
            if entry.plugin.is_of(loaded.plugin.distribution)
        }
        for spec in loaded.specs:
            owner = taken.get((spec.kind, spec.name))
            if owner is not None:
                error = PluginError(f"{NOUNS[spec.kind]} {spec.name!r} is registered twice, first by {owner}")
                loaded = replace(loaded, specs=(), error=error)
                break
            taken[spec.kind, spec.name] = loaded.plugin
        for spec in loaded.specs:
            entries = self._entries[spec.kind]
            entries.append(Entry(spec, loaded.plugin))
            entries.sort(key=lambda entry: (entry.name, entry.plugin.distribution))
        self.plugins.append(loaded)
        return loaded

    @property
    def failures(self) -> list[LoadedPlugin]:
        """The plugins that failed."""
        return [loaded for loaded in self.plugins if loaded.error is not None]

    @overload
    def entries(self, kind: Literal["input", "output"]) -> list[Entry[AdapterSpec]]: ...
    @overload
    def entries(self, kind: Literal["task"]) -> list[Entry[TaskSpec]]: ...
    @overload
    def entries(self, kind: Literal["data"]) -> list[Entry[DataSpec]]: ...
    @overload
    def entries(self, kind: Literal["model"]) -> list[Entry[ModelSpec]]: ...
    @overload
    def entries(self, kind: Literal["format"]) -> list[Entry[FormatSpec]]: ...
    @overload
    def entries(self, kind: Literal["migration"]) -> list[Entry[MigrationSpec]]: ...
    def entries(self, kind: str) -> list[Any]:
        """All that is registered of a kind ("input", "output", "task", "data", "model", "format" or "migration")."""
        return list(self._entries[kind])

    @overload
    def get(self, kind: Literal["input", "output"], name: str, home: Plugin | None = None) -> Entry[AdapterSpec]: ...
    @overload
    def get(self, kind: Literal["task"], name: str, home: Plugin | None = None) -> Entry[TaskSpec]: ...
    @overload
    def get(self, kind: Literal["data"], name: str, home: Plugin | None = None) -> Entry[DataSpec]: ...
    @overload
    def get(self, kind: Literal["model"], name: str, home: Plugin | None = None) -> Entry[ModelSpec]: ...
    @overload
    def get(self, kind: Literal["format"], name: str, home: Plugin | None = None) -> Entry[FormatSpec]: ...
    def get(self, kind: Any, name: str, home: Plugin | None = None) -> Any:
        """The entry of a kind that answers to ``name``.

        Args:
            kind: "input", "output", "task", "data", "model" or "format".
            name: its registered name, or the name or path of its class, or one of these after its distribution's
                (``strange-audio:wave``).
            home: the plugin that says the name in a spec of its own. What its distribution registers comes first.

        Raises:
            UnknownNameError: if there is none; the message says which names are near, and what is not loaded.
            AmbiguousNameError: if there are several, of different distributions.
        """
        found = self.find(kind, name, home)
        if found is None:
            raise UnknownNameError(self._unknown(kind, name))
        return found

    def find(self, kind: Any, name: str, home: Plugin | None = None) -> Entry[Any] | None:
        """As :meth:`get`, but None if there is no such entry."""
        found = self.matches(kind, name, home)
        owners = dict.fromkeys(f"{entry.plugin.distribution} {entry.plugin.version}" for entry in found)
        if len(owners) > 1:
            choices = " or ".join(f"{entry.plugin.distribution}:{name}" for entry in found)
            raise AmbiguousNameError(f"{NOUNS[kind]} {name!r} is in {' and '.join(owners)}; write {choices}")
        return found[0] if found else None

    def matches(self, kind: Any, name: str, home: Plugin | None = None) -> list[Entry[Any]]:
        """All entries that :meth:`get` may mean; those that are registered by the name hide those of its class."""
        entries = self._entries[kind]
        distribution, _, short = name.partition(":")
        if short and any(loaded.plugin.is_of(distribution) for loaded in self.plugins):
            entries, name = _of_distribution(entries, distribution), short
        at_home = _of_distribution(entries, home.distribution) if home is not None else []
        return _called(at_home, name) or _called(entries, name)

    def short_name(self, entry: Entry[Any]) -> str:
        """The shortest name that means ``entry`` as long as no other plugin is installed."""
        alone = [other for other in self._entries[entry.kind] if other.name == entry.name] == [entry]
        return entry.name if alone else entry.full_name

    def names(self, kind: str) -> list[str]:
        """The short names of all that is registered of a kind."""
        return [self.short_name(entry) for entry in self._entries[kind]]

    def _unknown(self, kind: str, name: str) -> str:
        known = listed = self.names(kind)
        if name[:1].isupper():  # written like a class: compare it with classes
            paths = [path for entry in self._entries[kind] for path in entry.spec.import_paths]
            known = listed = [path.partition(":")[2] for path in paths]
        elif ":" in name:
            known = [entry.full_name for entry in self._entries[kind]]
        return f"unknown {NOUNS[kind]} {name!r}; {near(name, known, listed)}{self.not_loaded(name)}"

    def not_loaded(self, name: str) -> str:
        """What to say, after that a name is unknown, of plugins that may have it: those that failed or are disabled.

        Args:
            name: the unknown name; if it begins with a distribution, that one's plugins are the ones in question.
        """
        missing = self._missing(name)
        failed = [str(loaded) for loaded in missing if loaded.error]
        disabled = [loaded.plugin.name for loaded in missing if loaded.disabled]
        facts = failed[:LISTED] + _more(failed, "failed")
        if disabled:
            facts += [f"disabled plugins: {', '.join(disabled[:LISTED])}", *_more(disabled, "are disabled")]
        return "".join(f"; {fact}" for fact in facts)

    def _missing(self, name: str) -> list[LoadedPlugin]:
        """The plugins that are not loaded: those of the distribution that ``name`` begins with, or all."""
        missing = [loaded for loaded in self.plugins if loaded.status != "ok"]
        distribution, _, short = name.partition(":")
        of_distribution = [loaded for loaded in missing if short and loaded.plugin.is_of(distribution)]
        return of_distribution or missing

    def adapter_of(self, kind: Literal["input", "output"], config: object) -> Entry[AdapterSpec]:
        """The adapter that the type of ``config`` selects.

        Of several that register one type, the adapter that lies in the type's own package is meant: nobody can take
        another's over.

        Raises:
            UnknownNameError: if no plugin registered that type.
            AmbiguousNameError: if several did.
        """
        config_type = type(config)
        # A config of that type exists, so the module that a spec names is imported if the spec means this type.
        found = [entry for entry in self.entries(kind) if _is_at(entry.spec.config, config_type)]
        if len(found) > 1:
            package = config_type.__module__.partition(".")[0]
            found = [e for e in found if e.spec.adapter.replace(":", ".").partition(".")[0] == package] or found
        path = f"{config_type.__module__}.{config_type.__qualname__}"
        if not found:
            raise UnknownNameError(f"no plugin registers an {NOUNS[kind]} for {path}{self.not_loaded('')}")
        if len(found) > 1:
            raise AmbiguousNameError(f"{path} is the config of {' and '.join(entry.full_name for entry in found)}")
        return found[0]

    def task_of(self, module_type: type) -> Entry[TaskSpec]:
        """The task that a Lightning module's class says it serves, by its attribute ``task``.

        Raises:
            UnknownNameError: if no plugin registers it.
            AmbiguousNameError: if several do, none of them with this class or one that it is derived from.
        """
        name: str = module_type.task  # type: ignore[attr-defined]
        found = [
            entry
            for entry in self.matches("task", name)
            if any(_is_at(entry.spec.module, each) for each in module_type.__mro__)
        ]
        return found[0] if len(found) == 1 else self.get("task", name)


def _of_distribution(entries: Iterable[Entry[Any]], distribution: str) -> list[Entry[Any]]:
    return [entry for entry in entries if entry.plugin.is_of(distribution)]


def _called(entries: Sequence[Entry[Any]], name: str) -> list[Entry[Any]]:
    """The entries registered under ``name`` or, if there is none, those of a class of that name."""
    return [entry for entry in entries if entry.name == name] or [entry for entry in entries if entry.answers_to(name)]


def _more(plugins: Sequence[str], what: str) -> list[str]:
    """The number of plugins beyond those that an error lists, in words; nothing if it lists all."""
    return [f"{len(plugins) - LISTED} more plugins {what}"] if len(plugins) > LISTED else []


def _is_at(place: str, thing: object) -> bool:
    """Whether ``place`` is that of ``thing``, as far as what is imported tells."""
    module, _, attribute = place.partition(":")
    try:
        return getattr(sys.modules.get(module), attribute, None) is thing
    except Exception:  # a module may have a __getattr__ of its own
        return False


def registry() -> Registry:
    """The registry of what is installed, discovered at the first call.

    A plugin that fails is no error; it stands under :attr:`Registry.failures`. The environment variables
    ``PERCEIVER_PLUGINS``, ``PERCEIVER_DISABLE_PLUGINS`` and ``PERCEIVER_PLUGIN_FILES`` say what is loaded
    (:class:`~perceiver_registry.discovery.Selection`).

    Raises:
        UserError: if they name a plugin that there is not.
        PluginError: if a plugin from a file fails: it was asked for.
    """
    return _registry(Selection.of_environment())


@functools.cache
def _registry(selection: Selection) -> Registry:
    found = Registry(discover(selection))
    files = [loaded for loaded in found.plugins if loaded.plugin.is_local]
    for path, loaded in zip(selection.files, files, strict=True):
        if loaded.error is not None:
            raise PluginError(f"--plugin={path}: {loaded.error}") from loaded.error
    return found
