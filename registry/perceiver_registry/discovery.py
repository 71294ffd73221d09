"""Finds plugins: those that are installed, and files that are not."""

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
"""Environment variables that say what is loaded, so that processes that a run starts load the same."""

NO_PLUGIN = "none"
"""Stands for an empty list of plugins."""


@dataclass(frozen=True)
class Selection:
    """Which plugins are to be loaded. Their names are those of plugins or of distributions.

    Attributes:
        only: the installed plugins that are loaded; None: all.
        disabled: plugins that are not loaded.
        files: absolute paths of files to be loaded as well.
    """

    only: tuple[str, ...] | None = None
    disabled: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @classmethod
    def of_environment(cls) -> Selection:
        """What the environment variables :data:`ONLY`, :data:`DISABLED` and :data:`FILES` say.

        The first two are separated by commas, files like the folders of ``PATH``.
        """
        only, disabled, files = (os.environ.get(name) for name in (ONLY, DISABLED, FILES))
        return cls(
            None if only is None else _names(only),
            _names(disabled or ""),
            tuple(filter(None, (files or "").split(os.pathsep))),
        )

    def as_environment(self) -> Mapping[str, str]:
        """The environment variables that say this; those that would say nothing are left out."""
        said = {
            ONLY: None if self.only is None else ",".join(self.only) or NO_PLUGIN,
            DISABLED: ",".join(self.disabled),
            FILES: os.pathsep.join(self.files),
        }
        return {name: value for name, value in said.items() if value}

    def takes(self, plugin: Plugin) -> bool:
        """Whether an installed plugin is to be loaded."""
        wanted = self.only is None or any(_is_called(plugin, name) for name in self.only)
        return wanted and not any(_is_called(plugin, name) for name in self.disabled)

    def check(self, plugins: list[Plugin]) -> None:
        """Checks that there are plugins of all names.

        Raises:
            UserError: if not; the message says which names are near.
        """
        for source, names in (("--plugins", self.only or ()), (DISABLED, self.disabled)):
            for name in names:
                if not any(_is_called(plugin, name) for plugin in plugins):
                    known = {known for plugin in plugins for known in (plugin.name, plugin.distribution)}
                    raise UserError(f"{source}={name}: there is no such plugin; {near(name, known)}")


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    return () if names == (NO_PLUGIN,) else names


def _is_called(plugin: Plugin, name: str) -> bool:
    return plugin.name == name or plugin.is_of(name)


def discover(selection: Selection) -> Iterator[LoadedPlugin]:
    """Loads the selected plugins; those that are not to be loaded come along as disabled.

    Raises:
        UserError: if the selection names a plugin that there is not.
    """
    found = sorted(_installed(), key=lambda each: (each[0].distribution, each[0].name))
    selection.check([plugin for plugin, _ in found])
    for plugin, import_it in found:
        yield load(plugin, import_it) if selection.takes(plugin) else LoadedPlugin(plugin, disabled=True)
    for path in selection.files:
        file = Path(path)
        yield load(Plugin(file.stem, file.name, LOCAL), functools.partial(import_file, path))


def _installed() -> Iterator[tuple[Plugin, Callable[[], object]]]:
    """The plugins of all installed distributions, and what imports each. The first distribution of a name counts."""
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
        except Exception as error:  # anything may lie in that folder
            reason = f"its metadata cannot be read: {in_one_line(error)}"
            yield Plugin("?", _folder(distribution), "?"), functools.partial(_fail, reason)
            continue
        if name not in seen:
            seen.add(name)
            yield from ((Plugin(point.name, name, version), point.load) for point in points)


def find_packages_without_plugins(required: str = OWN_DISTRIBUTION) -> list[str]:
    """Names of installed distributions that require another one, but declare no plugin of this project.

    Args:
        required: name of the distribution that is required.
    """
    found = set()
    for distribution in distributions():
        try:
            name = distribution.metadata["Name"]
            requires = any(_is_requirement(line, required) for line in distribution.requires or ())
            if requires and not any(point.group == PROJECT for point in distribution.entry_points):
                found.add(str(name))
        except Exception:  # anything may lie in that folder
            continue
    return sorted(found)


def _is_requirement(line: str, distribution: str) -> bool:
    """Whether a line of a distribution's metadata requires another distribution, whatever extras are chosen."""
    name = re.match(r"[\w.-]*", line)
    return name is not None and is_same_distribution(name[0], distribution) and "extra ==" not in line


def _folder(distribution: Distribution) -> str:
    """The name of the folder that a distribution's metadata lies in, as far as it has one."""
    return Path(str(getattr(distribution, "_path", "an unknown distribution"))).name


def _fail(reason: str) -> object:
    raise PluginError(reason)
