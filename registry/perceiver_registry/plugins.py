"""Loading of a single plugin. Errors in a plugin's code are contained here."""

from __future__ import annotations

import contextlib
import re
import reprlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import pluggy

from perceiver_registry import hooks
from perceiver_registry.errors import PluginError, in_one_line, near
from perceiver_registry.specs import (
    AdapterSpec,
    ArchitectureSpec,
    DataSpec,
    FormatSpec,
    MigrationSpec,
    ModelSpec,
    Spec,
    TaskSpec,
)

INTERFACE_VERSION = "2.2"
"""Version of the interface that plugins are written for: the hooks, the specs, and the public names of
``perceiver_registry``, ``perceiver_core`` and ``perceiver_plugins.sdk``. Minor versions add to it, major versions break
plugins.
"""

OLDEST_INTERFACE = "1.0"
"""Oldest version whose plugins are loaded. Earlier major versions than the current one are deprecated."""

REMOVED = {"conversions": "register a format with the hook perceiver_formats; see docs/interface.md"}
"""Removed arguments of specs of interface 1, with their replacements."""

DECLARATION = "PERCEIVER_INTERFACE"
"""Variable of a plugin's module with its interface version."""

OWN_DISTRIBUTION = "perceiver-zoo"
"""Distribution of this project and of the built-in plugins."""

LOCAL = "local file"
"""Version of plugins that are local files."""

SPEC_TYPES: dict[str, type[Spec]] = {
    "perceiver_adapters": AdapterSpec,
    "perceiver_architectures": ArchitectureSpec,
    "perceiver_tasks": TaskSpec,
    "perceiver_data": DataSpec,
    "perceiver_models": ModelSpec,
    "perceiver_formats": FormatSpec,
    "perceiver_migrations": MigrationSpec,
}
"""Type of the specs that each hook returns."""


@dataclass(frozen=True)
class Plugin:
    """A plugin's name, distribution and version.

    Attributes:
        name: name of its entry point.
        distribution: name of the installed distribution that declares the entry point, or of a local file.
        version: version of that distribution, or :data:`LOCAL`.
    """

    name: str
    distribution: str
    version: str

    def __str__(self) -> str:
        version = f"({LOCAL})" if self.is_local else self.version
        return f"plugin {self.name!r} of {self.distribution} {version}"

    @property
    def is_local(self) -> bool:
        """Return whether the plugin is a local file, which is not installed."""
        return self.version == LOCAL

    def is_of(self, distribution: str) -> bool:
        """Return whether the plugin belongs to a distribution, whose name may have any spelling that pip accepts."""
        return is_same_distribution(self.distribution, distribution)


def is_same_distribution(one: str, other: str) -> bool:
    """Compare two distribution names, ignoring case and treating dots and underscores as hyphens."""
    one, other = (re.sub(r"[-_.]+", "-", name).lower() for name in (one, other))
    return one == other


@dataclass(frozen=True)
class LoadedPlugin:
    """Result of loading a plugin.

    Attributes:
        plugin: the plugin.
        specs: its specs. Empty if it failed or is disabled.
        interface: interface version that it declares, or None.
        seconds: loading time.
        error: reason of a failure, or None.
        disabled: whether it is disabled and was not loaded.
    """

    plugin: Plugin
    specs: tuple[Spec, ...] = ()
    interface: str | None = None
    seconds: float = 0.0
    error: PluginError | None = None
    disabled: bool = False

    @property
    def status(self) -> Literal["ok", "disabled", "failed"]:
        if self.error is not None:
            return "failed"
        return "disabled" if self.disabled else "ok"

    @property
    def deprecation(self) -> str | None:
        """Deprecation notice of a plugin for an earlier major version, or None."""
        declared = self.interface or INTERFACE_VERSION
        if self.error is not None or _number(declared)[0] == _number(INTERFACE_VERSION)[0]:
            return None
        return (
            f"{self.plugin} is written for interface {declared}, which the next release will not load (upgrade "
            f"it; its authors find what changed in {INTERFACE_VERSION} in docs/interface.md)"
        )

    def __str__(self) -> str:
        return f"{self.plugin} {'failed: ' if self.error else 'is '}{self.error or self.status}"


def load(plugin: Plugin, import_it: Callable[[], object]) -> LoadedPlugin:
    """Load a plugin. Any exception of its code, SystemExit included, becomes the result's ``error``.

    Args:
        plugin: name, distribution and version.
        import_it: function that returns the module or object with the hooks.
    """
    start = time.perf_counter()
    specs: tuple[Spec, ...] = ()
    interface = error = None
    try:
        # Plugins may print when they are imported, and a command's output may be JSON.
        with contextlib.redirect_stdout(sys.stderr):
            with _plugin_errors("cannot be imported"):
                implementation = import_it()
            interface = _interface_of(implementation)
            specs = tuple(_specs_of(implementation))
    except PluginError as failure:
        error, specs = failure, ()
    return LoadedPlugin(plugin, specs, interface, time.perf_counter() - start, error)


@contextlib.contextmanager
def _plugin_errors(what: str) -> Iterator[None]:
    """Convert exceptions of a plugin's code to a PluginError that begins with ``what``."""
    try:
        yield
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as error:  # also SystemExit and those of test frameworks
        raise PluginError(f"{what}: {_removed(error) or in_one_line(error)}") from error


def _removed(error: BaseException) -> str | None:
    """Return the message about a removed argument of a spec, or None for other errors."""
    if not isinstance(error, TypeError):
        return None
    found = (name for name in REMOVED if f"unexpected keyword argument {name!r}" in str(error))
    return next((f"{name!r} was removed in interface 2.0 ({REMOVED[name]})" for name in found), None)


def _interface_of(implementation: object) -> str | None:
    """Return the interface version that a plugin declares, or None.

    Raises:
        PluginError: if it is later than the current version, or earlier than the oldest supported one.
    """
    with _plugin_errors(DECLARATION):
        version = getattr(implementation, DECLARATION, None)
    if version is None:
        return None
    if not isinstance(version, str) or not re.fullmatch(r"\d+\.\d+", version):
        raise PluginError(f"{DECLARATION} = {reprlib.repr(version)}: expected a string such as {INTERFACE_VERSION!r}")
    if not _number(OLDEST_INTERFACE) <= _number(version) <= _number(INTERFACE_VERSION):
        outdated = "perceiver-zoo" if _number(version) > _number(INTERFACE_VERSION) else "it"
        raise PluginError(
            f"it was written for interface {version}, but this is {INTERFACE_VERSION}: upgrade {outdated}"
        )
    return version


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def _specs_of(implementation: object) -> Iterator[Spec]:
    """Call the hooks of a plugin and yield the specs that they return.

    Raises:
        PluginError: if the plugin implements no hook, an unknown one or a hook wrapper, or if a hook fails or returns
            anything but its specs.
    """
    hook_functions = _hook_functions(implementation)
    for name, spec_type in SPEC_TYPES.items():
        for function in hook_functions.get(name, ()):
            with _plugin_errors(f"{name} failed"):
                specs = list(function())  # type: ignore[call-overload]
            for spec in specs:
                if not isinstance(spec, spec_type):
                    raise PluginError(f"{name} returned {reprlib.repr(spec)}, which is not a {spec_type.__name__}")
                yield spec


def _hook_functions(implementation: object) -> dict[str, list[Callable[..., object]]]:
    """Return the functions of a plugin that implement hooks, by hook name.

    Raises:
        PluginError: if the plugin implements no hook, an unknown one or a hook wrapper.
    """
    # One manager per plugin, since pluggy keeps part of a plugin that it rejects.
    manager = pluggy.PluginManager(hooks.PROJECT)
    manager.add_hookspecs(hooks)
    with _plugin_errors("its hooks cannot be read"):
        _refuse_wrappers(implementation, manager)
        manager.register(implementation, name="plugin")
        callers = {caller.name: caller for caller in manager.get_hookcallers(implementation) or ()}
    if not callers:
        raise PluginError("it registers nothing: no function in it is marked with @hookimpl")
    for name, caller in callers.items():
        if name not in SPEC_TYPES and not all(each.optionalhook for each in caller.get_hookimpls()):
            raise PluginError(f"unknown hook {name!r}; {near(name, SPEC_TYPES)}")
    return {name: [each.function for each in caller.get_hookimpls()] for name, caller in callers.items()}


def _refuse_wrappers(implementation: object, manager: pluggy.PluginManager) -> None:
    """Raise PluginError if a function is a hook wrapper, since hooks of different plugins are called independently.

    pluggy's own error about wrappers suggests no replacement.
    """
    for name in dir(implementation):
        options: Mapping[str, object] = manager.parse_hookimpl_opts(implementation, name) or {}
        kind = next((kind for kind in ("wrapper", "hookwrapper") if options.get(kind)), None)
        if kind is not None:
            hook = options.get("specname") or name
            raise PluginError(
                f"{hook} is a hook wrapper, which plugins cannot register (mark it with @hookimpl without {kind}=True, "
                "and return specs)"
            )
