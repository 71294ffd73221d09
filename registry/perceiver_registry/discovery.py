"""Discovery of installed plugins and of plugins in local files."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from perceiver_registry.errors import PluginError, UserError, in_one_line, near
from perceiver_registry.hooks import PROJECT
from perceiver_registry.local import import_file
from perceiver_registry.plugins import LOCAL, OWN_DISTRIBUTION, LoadedPlugin, Plugin, is_same_distribution, load

ONLY, DISABLED, FILES = "PERCEIVER_PLUGINS", "PERCEIVER_DISABLE_PLUGINS", "PERCEIVER_PLUGIN_FILES"
"""Environment variables that select plugins, which child processes inherit."""

NO_PLUGIN = "none"
"""Value for an empty list of plugins."""


@dataclass(frozen=True)
class Selection:
    """Selection of plugins to load, by plugin or distribution name.

    Attributes:
        only: installed plugins to load. None: all.
        disabled: installed plugins not to load.
        files: absolute paths of plugin files to load as well.
    """

    only: tuple[str, ...] | None = None
    disabled: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @classmethod
    def of_environment(cls) -> Selection:
        """Read the environment variables :data:`ONLY`, :data:`DISABLED` and :data:`FILES`.

        Names are separated by commas, files by ``os.pathsep``.
        """
        only, disabled, files = (os.environ.get(name) for name in (ONLY, DISABLED, FILES))
        return cls(
            None if only is None else _names(only),
            _names(disabled or ""),
            tuple(filter(None, (files or "").split(os.pathsep))),
        )

    def as_environment(self) -> Mapping[str, str]:
        """Return the selection as environment variables, without empty ones."""
        values = {
            ONLY: None if self.only is None else ",".join(self.only) or NO_PLUGIN,
            DISABLED: ",".join(self.disabled),
            FILES: os.pathsep.join(self.files),
        }
        return {name: value for name, value in values.items() if value}

    def includes(self, plugin: Plugin) -> bool:
        """Return whether an installed plugin is selected."""
        is_selected = self.only is None or any(_has_name(plugin, name) for name in self.only)
        return is_selected and not any(_has_name(plugin, name) for name in self.disabled)

    def check(self, plugins: list[Plugin]) -> None:
        """Check that all names exist.

        Raises:
            UserError: if a name is unknown; the message suggests similar names.
        """
        for source, names in (("--plugins", self.only or ()), (DISABLED, self.disabled)):
            for name in names:
                if not any(_has_name(plugin, name) for plugin in plugins):
                    known = {known for plugin in plugins for known in (plugin.name, plugin.distribution)}
                    raise UserError(f"{source}={name}: unknown plugin; {near(name, known)}")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    return () if names == (NO_PLUGIN,) else names


def _has_name(plugin: Plugin, name: str) -> bool:
    return plugin.name == name or plugin.is_of(name)


def discover(selection: Selection) -> Iterator[LoadedPlugin]:
    """Load the selected plugins, and yield all others as disabled.

    Raises:
        UserError: if the selection names a plugin that does not exist.
    """
    found = sorted(_installed(), key=lambda each: (each[0].distribution, each[0].name))
    selection.check([plugin for plugin, _ in found])
    for plugin, import_it in found:
        yield load(plugin, import_it) if selection.includes(plugin) else LoadedPlugin(plugin, disabled=True)
    for path in selection.files:
        file = Path(path)
        yield load(Plugin(file.stem, file.name, LOCAL), functools.partial(import_file, path))


def _installed() -> Iterator[tuple[Plugin, Callable[[], object]]]:
    """Yield all installed plugins with their import functions. Of distributions with one name, the first is used."""
    seen = set()
    for distribution in distributions():
        try:
            points = [point for point in distribution.entry_points if point.group == PROJECT]
            if not points:
                continue
            metadata = distribution.metadata
            if not {"Name", "Version"} <= set(metadata):
                raise ValueError("no name or no version")
            name, version = metadata["Name"], metadata["Version"]
        except Exception as error:  # the metadata may be damaged in any way
            reason = f"its metadata cannot be read: {in_one_line(error)}"
            yield Plugin("?", _folder(distribution), "?"), functools.partial(_fail, reason)
            continue
        if name not in seen:
            seen.add(name)
            yield from ((Plugin(point.name, name, version), point.load) for point in points)


def find_packages_without_plugins(required: str = OWN_DISTRIBUTION) -> list[str]:
    """Return the names of installed distributions that require this project but declare no plugin.

    Args:
        required: distribution that they require.
    """
    found = set()
    for distribution in distributions():
        try:
            name = distribution.metadata["Name"]
            requires = any(_is_requirement(line, required) for line in distribution.requires or ())
            if requires and not any(point.group == PROJECT for point in distribution.entry_points):
                found.add(str(name))
        except Exception:  # the metadata may be damaged in any way
            continue
    return sorted(found)


def _is_requirement(line: str, distribution: str) -> bool:
    """Return whether a requirement line is an unconditional requirement of a distribution."""
    name = re.match(r"[\w.-]*", line)
    return name is not None and is_same_distribution(name[0], distribution) and "extra ==" not in line


def _folder(distribution: Distribution) -> str:
    """Return the name of the folder with a distribution's metadata, if known."""
    return Path(str(getattr(distribution, "_path", "an unknown distribution"))).name


def _fail(reason: str) -> object:
    raise PluginError(reason)
