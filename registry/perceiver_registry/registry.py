"""Registry of the specs of all plugins."""

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
from perceiver_registry.specs import (
    AdapterSpec,
    ArchitectureSpec,
    DataSpec,
    FormatSpec,
    MigrationSpec,
    ModelSpec,
    TaskSpec,
)

S = TypeVar("S", AdapterSpec, ArchitectureSpec, DataSpec, TaskSpec, ModelSpec, FormatSpec, MigrationSpec)

NOUNS = {
    "input": "input adapter",
    "output": "output adapter",
    "architecture": "architecture",
    "task": "task",
    "data": "data module",
    "model": "model",
    "format": "format",
    "migration": "migration",
}
"""Names of the kinds of specs, for messages."""

LISTED = 3
"""Maximum number of plugins that an error lists. Arbitrary."""


@dataclass(frozen=True)
class Entry(Generic[S]):
    """A registered spec with its plugin."""

    spec: S
    plugin: Plugin

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def full_name(self) -> str:
        """Name with the distribution (``perceiver-zoo:text``), unique among all plugins."""
        return f"{self.plugin.distribution}:{self.name}"

    @property
    def kind(self) -> str:
        return self.spec.kind

    def resolve(self, field: str, key: str | None = None) -> Any:
        """Import the object that a field of the spec (``"adapter"``, ``"config"``, ``"module"``, ...) names.

        Args:
            field: a field with an import path, or with a mapping of import paths.
            key: key in the mapping.

        Raises:
            PluginError: if the import path cannot be resolved.
        """
        path = getattr(self.spec, field) if key is None else getattr(self.spec, field)[key]
        try:
            with contextlib.redirect_stdout(sys.stderr):  # modules may print when imported
                return resolve_import_path(path)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # third-party modules may raise anything
            missing = missing_requirement(error, self.plugin.distribution, (self.plugin.name,))
            if missing is not None:
                raise PluginError(f"{NOUNS[self.kind]} {self.name!r}: {missing}") from error
            raise PluginError(
                f"{NOUNS[self.kind]} {self.name!r} ({self.plugin}): cannot import its {field} {path!r}: "
                f"{in_one_line(error)}"
            ) from error

    def answers_to(self, name: str) -> bool:
        """Return whether ``name`` is the registered name, or the name or import path of one of the spec's classes."""
        if name == self.name:
            return True
        return any(name in (path, path.replace(":", "."), path.partition(":")[2]) for path in self.spec.import_paths)


class Registry:
    """Specs of the loaded plugins, by kind and name.

    Entries of different distributions may share a name. ``distribution:name`` selects one of them, wherever a name is
    expected.

    Args:
        plugins: the loaded plugins. Nothing is registered for plugins that failed.

    Attributes:
        plugins: all plugins, including failed and disabled ones.
    """

    def __init__(self, plugins: Iterable[LoadedPlugin] = ()):
        self.plugins: list[LoadedPlugin] = []
        self._entries: dict[str, list[Entry[Any]]] = {kind: [] for kind in NOUNS}
        for loaded in plugins:
            self._add(loaded)

    def register(self, implementation: object, plugin: Plugin) -> None:
        """Call the hooks of ``implementation`` (a module or an object) and register their specs for ``plugin``.

        Raises:
            PluginError: if a hook fails, returns anything but its specs, or registers a name that the distribution has
                already registered.
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
        """Plugins that failed to load."""
        return [loaded for loaded in self.plugins if loaded.error is not None]

    @overload
    def entries(self, kind: Literal["input", "output"]) -> list[Entry[AdapterSpec]]: ...
    @overload
    def entries(self, kind: Literal["architecture"]) -> list[Entry[ArchitectureSpec]]: ...
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
        """Return the entries of a kind, one of :data:`~perceiver_registry.registry.NOUNS`."""
        return list(self._entries[kind])

    @overload
    def get(self, kind: Literal["input", "output"], name: str, home: Plugin | None = None) -> Entry[AdapterSpec]: ...
    @overload
    def get(self, kind: Literal["architecture"], name: str, home: Plugin | None = None) -> Entry[ArchitectureSpec]: ...
    @overload
    def get(self, kind: Literal["task"], name: str, home: Plugin | None = None) -> Entry[TaskSpec]: ...
    @overload
    def get(self, kind: Literal["data"], name: str, home: Plugin | None = None) -> Entry[DataSpec]: ...
    @overload
    def get(self, kind: Literal["model"], name: str, home: Plugin | None = None) -> Entry[ModelSpec]: ...
    @overload
    def get(self, kind: Literal["format"], name: str, home: Plugin | None = None) -> Entry[FormatSpec]: ...
    def get(self, kind: Any, name: str, home: Plugin | None = None) -> Any:
        """Return the entry of a kind with a name.

        Args:
            kind: "input", "output", "architecture", "task", "data", "model" or "format".
            name: the registered name, or the name or import path of a class of the spec, each optionally with the
                distribution as a prefix (``strange-audio:wave``).
            home: the plugin whose spec contains the name. Entries of its distribution come first.

        Raises:
            UnknownNameError: if it does not exist; the message suggests similar names and lists plugins that are not
                loaded.
            AmbiguousNameError: if several distributions register it.
        """
        found = self.find(kind, name, home)
        if found is None:
            raise UnknownNameError(self._unknown(kind, name))
        return found

    def find(self, kind: Any, name: str, home: Plugin | None = None) -> Entry[Any] | None:
        """Return the entry like :meth:`get`, or None if it does not exist."""
        found = self.matches(kind, name, home)
        owners = dict.fromkeys(f"{entry.plugin.distribution} {entry.plugin.version}" for entry in found)
        if len(owners) > 1:
            choices = " or ".join(f"{entry.plugin.distribution}:{name}" for entry in found)
            raise AmbiguousNameError(f"{NOUNS[kind]} {name!r} is in {' and '.join(owners)}; write {choices}")
        return found[0] if found else None

    def matches(self, kind: Any, name: str, home: Plugin | None = None) -> list[Entry[Any]]:
        """Return all entries that match a name in :meth:`get`; registered names take precedence over class names."""
        entries = self._entries[kind]
        distribution, _, short = name.partition(":")
        if short and any(loaded.plugin.is_of(distribution) for loaded in self.plugins):
            entries, name = _of_distribution(entries, distribution), short
        home_entries = _of_distribution(entries, home.distribution) if home is not None else []
        return _with_name(home_entries, name) or _with_name(entries, name)

    def short_name(self, entry: Entry[Any]) -> str:
        """Return the shortest name that is unique among the installed plugins."""
        is_unique = [other for other in self._entries[entry.kind] if other.name == entry.name] == [entry]
        return entry.name if is_unique else entry.full_name

    def names(self, kind: str) -> list[str]:
        """Return the short names of the entries of a kind."""
        return [self.short_name(entry) for entry in self._entries[kind]]

    def _unknown(self, kind: str, name: str) -> str:
        known = listed = self.names(kind)
        if name[:1].isupper():  # a class name
            paths = [path for entry in self._entries[kind] for path in entry.spec.import_paths]
            known = listed = [path.partition(":")[2] for path in paths]
        elif ":" in name:
            known = [entry.full_name for entry in self._entries[kind]]
        return f"unknown {NOUNS[kind]} {name!r}; {near(name, known, listed)}{self.not_loaded(name)}"

    def not_loaded(self, name: str) -> str:
        """Describe failed and disabled plugins, which may register an unknown name, for error messages.

        Args:
            name: the unknown name. A distribution as its prefix restricts the description to its plugins.
        """
        missing = self._missing(name)
        failed = [str(loaded) for loaded in missing if loaded.error]
        disabled = [loaded.plugin.name for loaded in missing if loaded.disabled]
        facts = failed[:LISTED] + _more(failed, "failed")
        if disabled:
            facts += [f"disabled plugins: {', '.join(disabled[:LISTED])}", *_more(disabled, "are disabled")]
        return "".join(f"; {fact}" for fact in facts)

    def _missing(self, name: str) -> list[LoadedPlugin]:
        """Return the failed and disabled plugins of the distribution in ``name``, or all if it has none."""
        missing = [loaded for loaded in self.plugins if loaded.status != "ok"]
        distribution, _, short = name.partition(":")
        of_distribution = [loaded for loaded in missing if short and loaded.plugin.is_of(distribution)]
        return of_distribution or missing

    def adapter_of(self, kind: Literal["input", "output"], config: object) -> Entry[AdapterSpec]:
        """Return the adapter registered for the type of ``config``.

        If several adapters are registered for it, the one in the type's own package is selected, so that plugins cannot
        replace adapters of other plugins.

        Raises:
            UnknownNameError: if no adapter is registered for the type.
            AmbiguousNameError: if several are, all in other packages or several in its own.
        """
        return self._selected_by(config, kind)

    def architecture_of(self, config: object) -> Entry[ArchitectureSpec]:
        """Return the architecture registered for the type of a model config, selected as in :meth:`adapter_of`.

        Raises:
            UnknownNameError: if no architecture is registered for the type.
            AmbiguousNameError: if several are, all in other packages or several in its own.
        """
        return self._selected_by(config, "architecture")

    def _selected_by(self, config: object, kind: str) -> Entry[Any]:
        """Return the entry of a kind that is registered for the type of ``config``."""
        config_type = type(config)
        # The module of the type is imported already, since a config of that type exists.
        found = [entry for entry in self._entries[kind] if _is_import_path_of(entry.spec.config, config_type)]
        if len(found) > 1:
            package = config_type.__module__.partition(".")[0]
            # The first import path of a spec is that of the class that the config belongs to.
            found = [e for e in found if e.spec.import_paths[0].replace(":", ".").partition(".")[0] == package] or found
        path = f"{config_type.__module__}.{config_type.__qualname__}"
        if not found:
            raise UnknownNameError(f"no plugin registers an {NOUNS[kind]} for {path}{self.not_loaded('')}")
        if len(found) > 1:
            raise AmbiguousNameError(f"{path} is the config of {' and '.join(entry.full_name for entry in found)}")
        return found[0]

    def task_of(self, module_type: type) -> Entry[TaskSpec]:
        """Return the task of a Lightning module's class, named by its attribute ``task``.

        Raises:
            UnknownNameError: if the task is not registered.
            AmbiguousNameError: if several distributions register it, none with this class or one of its base classes.
        """
        name: str = module_type.task  # type: ignore[attr-defined]
        found = [
            entry
            for entry in self.matches("task", name)
            if any(_is_import_path_of(entry.spec.module, each) for each in module_type.__mro__)
        ]
        return found[0] if len(found) == 1 else self.get("task", name)


def _of_distribution(entries: Iterable[Entry[Any]], distribution: str) -> list[Entry[Any]]:
    return [entry for entry in entries if entry.plugin.is_of(distribution)]


def _with_name(entries: Sequence[Entry[Any]], name: str) -> list[Entry[Any]]:
    """Return the entries registered as ``name``, otherwise those with a class of that name."""
    return [entry for entry in entries if entry.name == name] or [entry for entry in entries if entry.answers_to(name)]


def _more(plugins: Sequence[str], status: str) -> list[str]:
    """Count the plugins beyond :data:`LISTED`, which an error does not list."""
    return [f"{len(plugins) - LISTED} more plugins {status}"] if len(plugins) > LISTED else []


def _is_import_path_of(path: str, value: object) -> bool:
    """Return whether an import path resolves to ``value``, without importing modules."""
    module, _, attribute = path.partition(":")
    try:
        return getattr(sys.modules.get(module), attribute, None) is value
    except Exception:  # from a module's __getattr__
        return False


def registry() -> Registry:
    """Return the registry of the installed plugins, which the first call discovers.

    Plugins that fail to load do not raise an error, see :attr:`Registry.failures`. The environment variables
    ``PERCEIVER_PLUGINS``, ``PERCEIVER_DISABLE_PLUGINS`` and ``PERCEIVER_PLUGIN_FILES`` select plugins
    (:class:`~perceiver_registry.discovery.Selection`).

    Raises:
        UserError: if a variable names a plugin that does not exist.
        PluginError: if a plugin from a file fails to load.
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
