"""Typed description of a model: task, configuration, data and required plugins.

Files store it as plain data, which is converted when a file is read or written.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeGuard

from perceiver_registry.configs import (
    ADAPTER_KEY,
    ARCHITECTURE_KEY,
    PARTS,
    config_from_dict,
    config_to_dict,
    short_name,
    with_names,
)
from perceiver_registry.errors import PluginError, UserError, in_one_line
from perceiver_registry.migrations import apply_migration, find_migrations
from perceiver_registry.plain_data import PlainDataError, check_size
from perceiver_registry.plugins import LOCAL, OWN_DISTRIBUTION
from perceiver_registry.registry import NOUNS, Entry, registry
from perceiver_registry.specs import DEFAULT_ARCHITECTURE, MigrationSpec

if TYPE_CHECKING:
    from torch import Tensor

    from perceiver_core import ModelConfig

FORMAT = 1
"""Version of the description's layout."""

NAMED_SECTIONS = ("task", "model", "data", "optimizer", "lr_scheduler")
"""Sections of a run's configuration that may have a name."""


@dataclass(frozen=True)
class UsedPlugin:
    """A registered object that a model uses, and the distribution that registers it.

    Attributes:
        kind: "task", "input", "output", "architecture" or "data".
        name: its registered name.
        distribution: name of the distribution.
        version: version of the distribution that the description is written for, or
            :data:`~perceiver_registry.plugins.LOCAL`.
    """

    kind: str
    name: str
    distribution: str
    version: str

    def find(self) -> Entry[Any] | None:
        """Return the registered entry, or None if it is not installed."""
        found = registry().find(self.kind, f"{self.distribution}:{self.name}")
        # A plugin from a local file may be installed now.
        return registry().find(self.kind, self.name) if found is None and self.version == LOCAL else found

    def with_installed_version(self) -> UsedPlugin:
        """Return a copy with the installed version, unchanged for local files and plugins that are not installed."""
        found = self.find() if self.version != LOCAL else None
        return self if found is None else replace(self, version=found.plugin.version)

    def require(self, source: str | Path) -> None:
        """Check that the plugin is installed.

        Args:
            source: the file or folder that needs it, for the message.

        Raises:
            PluginError: if it is missing; the message gives the pip command, or the error of the installed plugin.
        """
        if self.find() is not None:
            return
        needs = f"{source}: needs the {NOUNS[self.kind]} {self.name!r} of {self.distribution}"
        if self.version == LOCAL:
            raise PluginError(f"{needs}, a file that is not installed: give it with --plugin=PATH/{self.distribution}")
        installed = [loaded for loaded in registry().plugins if loaded.plugin.is_of(self.distribution)]
        left_out = [loaded for loaded in installed if loaded.status != "ok"]
        if left_out:
            raise PluginError(f"{needs} {self.version}, but {'; '.join(map(str, left_out))}")
        pip = f"pip install {self.distribution}" + ("" if "+" in self.version else f"=={self.version}")
        installed_version = next((loaded.plugin.version for loaded in installed), None)
        instead = f", which {self.distribution} {installed_version} does not register" if installed else ""
        raise PluginError(f"{needs} {self.version}{instead}: {pip}")


class ModelWarning(UserWarning):
    """Warning about a model that was read, which all commands show."""


class PluginVersionWarning(ModelWarning):
    """A file was written with another version of a plugin than the installed one."""


@dataclass(frozen=True)
class PluginVersions:
    """Versions of a distribution: the one that wrote a file, and the installed one.

    Attributes:
        distribution: name of the distribution.
        written: version that wrote the file.
        installed: installed version, or None.
    """

    distribution: str
    written: str
    installed: str | None

    @classmethod
    def of(cls, used: UsedPlugin) -> Self:
        installed = (loaded.plugin for loaded in registry().plugins if loaded.plugin.is_of(used.distribution))
        return cls(used.distribution, used.version, next((plugin.version for plugin in installed), None))

    @property
    def differ(self) -> bool:
        """Return whether another release is installed. Builds of one release (``1.0+local``) are equal."""
        return self.installed is not None and self.installed.partition("+")[0] != self.written.partition("+")[0]

    def __str__(self) -> str:
        return f"{self.distribution} {self.written}, installed: {self.installed or 'none'}"


@dataclass(frozen=True)
class Results:
    """Progress and metrics of the run that trained a model.

    Attributes:
        steps: optimizer steps.
        metrics: monitored metrics by name (``{"val_loss": 1.5}``).
        logs: the run's folder.
        lightning: version of Lightning that wrote the checkpoint.
    """

    steps: int
    metrics: Mapping[str, float]
    logs: str
    lightning: str | None


@dataclass(frozen=True)
class ModelDescription:
    """Description of a model, as stored in its file.

    Attributes:
        task: name of the task that the model was trained for.
        model: plain configuration of the model (:func:`perceiver_registry.config_to_dict`).
        data: properties of the data that prediction needs, from the data module's ``description()``: its tokenizer, the
            normalisation of images.
        run: configuration of the run that trained the model, to resume it; only in checkpoints.
        plugins: registered objects that the model uses. After :meth:`prepare` their versions are the installed ones.
        seed: the run's random seed.
        format: version of the layout.
        results: progress and metrics of the run, if known; not part of the plain data.
        origin: the description before migrations, or None if it was not read from a file; not part of the plain data.
        migrations: migrations that were applied, which the weights need as well.
    """

    task: str
    model: Mapping[str, Any]
    data: Mapping[str, Any] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    plugins: tuple[UsedPlugin, ...] = ()
    seed: int | None = None
    format: int = FORMAT
    results: Results | None = None
    origin: ModelDescription | None = field(default=None, repr=False, compare=False)
    migrations: tuple[Entry[MigrationSpec], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def create(
        cls,
        task: str,
        config: ModelConfig[Any, Any],
        data: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
    ) -> Self:
        """Describe a model with the installed plugins.

        Names refer to the distributions in ``plugins``, independently of the plugins installed when it is read.

        Args:
            task: name of the task that the model was trained for.
            config: the model's configuration. ``params`` is omitted, since the file has the weights.
            data: properties of the data that prediction needs. None: no properties.
            run: the run's configuration. None: the model was not trained in a run.
        """
        model, run = config_to_dict(config.without_params()), dict(run or {})
        task_entry = registry().get("task", task)
        names = [(kind, name) for part, kind in PARTS.items() for name in _adapters_in(model[part])]
        if ARCHITECTURE_KEY in model:
            names.append(("architecture", model[ARCHITECTURE_KEY]))
        data_module = _data_module(run)
        if data_module:
            names.append(("data", data_module))
        found = (registry().find(kind, name) for kind, name in names)
        used: list[Entry[Any]] = [task_entry, *(entry for entry in found if entry is not None)]
        plugins = tuple(
            UsedPlugin(entry.kind, entry.name, entry.plugin.distribution, entry.plugin.version) for entry in used
        )
        return cls(registry().short_name(task_entry), model, dict(data or {}), run, plugins)

    @classmethod
    def from_dict(cls, plain: Any, source: str | Path) -> Self:
        """Validate untrusted plain data and create a description from it.

        Args:
            plain: plain data that :meth:`to_dict` returned.
            source: the file or folder, for messages.

        Raises:
            UserError: if the data is damaged or was written by a newer version of this project.
        """
        damaged = f"{source}: its description of the model is damaged"
        try:
            check_size(plain)
        except PlainDataError as error:
            raise UserError(f"{damaged}: {error}") from error
        version = plain.get("format") if isinstance(plain, Mapping) else None
        if _is_int(version) and version > FORMAT:
            raise UserError(f"{source}: written by a newer perceiver (format {version}); please upgrade")
        problem = next(_problems(plain), None)
        if problem is not None:
            raise UserError(f"{damaged}: {problem}")
        plugins = tuple(UsedPlugin(**{name: used[name] for name in USED}) for used in plain["plugins"])
        return cls(**{name: plain[name] for name in REQUIRED} | {"plugins": plugins, "seed": plain.get("seed")})

    @classmethod
    def from_partial(cls, plain: Mapping[str, Any]) -> Self:
        """Create a description from trusted plain data with any subset of the entries."""
        known = {name: plain[name] for name in (*REQUIRED, "seed") if name in plain}
        plugins = tuple(UsedPlugin(**{name: used[name] for name in USED}) for used in plain.get("plugins", ()))
        return cls(**{"task": "", "model": {}} | known, plugins=plugins)

    def to_dict(self, with_run: bool = True) -> dict[str, Any]:
        """Return the description as plain data, as stored in files.

        Args:
            with_run: include the run's configuration and seed, which only resuming needs.
        """
        plain = {
            "format": self.format,
            "task": self.task,
            "model": dict(self.model),
            "data": dict(self.data),
            "run": dict(self.run),
            "plugins": [{name: getattr(used, name) for name in USED} for used in self.plugins],
            "seed": self.seed,
        }
        return {name: value for name, value in plain.items() if with_run or name not in ("run", "seed")}

    def validate(self, source: str | Path) -> None:
        """Check that all plugins that the model needs are installed. The data module is needed for training only.

        Args:
            source: the file or folder, for messages.

        Raises:
            PluginError: if one is missing; the message gives the pip command.
        """
        for used in self.plugins:
            if used.kind != "data":
                used.require(source)

    def prepare(self, source: str | Path) -> Self:
        """Return the description migrated and renamed for the installed plugins.

        Args:
            source: the file or folder, for messages.

        Raises:
            UserError: if the configuration does not fit the installed plugins.
            PluginError: if it needs a plugin that is not installed; the message gives the pip command.
        """
        with replace(self, origin=self).loading(source):
            description = self._migrated(source)
        description.validate(source)
        # Files written from this description record the installed versions.
        plugins = tuple(used.with_installed_version() for used in description.plugins)
        description = replace(description, plugins=plugins).with_current_names()
        description.build_config(source)
        return description

    def note_versions(self, source: str | Path) -> None:
        """Emit a :class:`PluginVersionWarning` if the installed plugin versions are not those that wrote the file."""
        differing = [str(versions) for versions in self.versions() if versions.differ]
        if differing:
            notice = f"{source}: written with {'; '.join(differing)}{' (migrated)' if self.migrations else ''}"
            warnings.warn(notice, PluginVersionWarning, stacklevel=2)

    def _migrated(self, source: str | Path) -> Self:
        """Return the description with the migrations of the installed plugins applied."""
        migrations = find_migrations((used.distribution, used.version) for used in self.plugins)
        if not migrations:
            return replace(self, origin=self)
        plain = copy.deepcopy(self._with_plain_names().to_dict())
        for entry in migrations:
            plain = apply_migration(entry, "description", source, plain)
        return replace(type(self).from_dict(plain, source), migrations=tuple(migrations), origin=self)

    def migrate_weights(self, weights: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
        """Apply the migrations of the description to a model's weights.

        Args:
            weights: the weights in the file, by name in the model's state dict.
            source: the file or folder, for messages.

        Raises:
            PluginError: if a migration fails.
        """
        migrated = dict(weights)
        with self.loading(source):
            for entry in self.migrations:
                assert self.origin is not None
                written = self.origin._with_plain_names().to_dict()
                migrated = apply_migration(entry, "weights", source, migrated, written)
        return migrated

    def build_config(self, source: str | Path) -> ModelConfig[Any, Any]:
        """Create the configuration of the model.

        Args:
            source: the file or folder, for messages.

        Raises:
            UserError: if it does not fit the installed plugins; the message contains their versions.
        """
        with self.loading(source):
            try:
                return config_from_dict(self.model)
            except UserError:
                raise
            except ValueError as error:
                raise UserError(f"{source}: {error}") from error
            except (TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
                raise UserError(f"{source}: its description of the model is damaged: {in_one_line(error)}") from error

    def versions(self) -> list[PluginVersions]:
        """Return the written and installed versions of each distribution, empty if not read from a file."""
        return list(dict.fromkeys(map(PluginVersions.of, self.origin.plugins))) if self.origin else []

    def explain(self, error: str, source: str | Path) -> str:
        """Add the source and its plugin versions to the message of a load error.

        This project's version is added only if it differs, since later versions read all of its checkpoints.
        """
        message = error if str(source) in error else f"{source}: {error}"
        named = [str(each) for each in self.versions() if each.differ or each.distribution != OWN_DISTRIBUTION]
        versions = "; ".join(named)
        return message if not versions or versions in message else f"{message} (written with {versions})"

    @contextlib.contextmanager
    def loading(self, source: str | Path) -> Iterator[None]:
        """Apply :meth:`explain` to user errors that are raised within this context."""
        try:
            yield
        except UserError as error:
            raise type(error)(self.explain(str(error), source)) from error

    def with_current_names(self) -> Self:
        """Return the description with names that are unique among the installed plugins."""
        current = {
            (used.kind, written): registry().short_name(entry)
            for used in self.plugins
            if (entry := used.find()) is not None
            for written in (used.name, f"{used.distribution}:{used.name}")
        }
        return self._renamed(current)

    def _with_plain_names(self) -> Self:
        """Return the description with unique names in their short form, which migrations expect."""
        counts = Counter((kind, name) for kind, name, _ in {(u.kind, u.name, u.distribution) for u in self.plugins})
        plain = {
            (used.kind, f"{used.distribution}:{used.name}"): used.name
            for used in self.plugins
            if counts[used.kind, used.name] == 1
        }
        return self._renamed(plain)

    def _renamed(self, names: Mapping[tuple[str, str], str]) -> Self:
        """Return the description with names replaced by those in ``names``, by kind and name."""

        def rename(kind: str, written: str) -> str:
            return names.get((kind, written), written)

        model, run = dict(self.model), dict(self.run)
        for part, kind in PARTS.items():
            model[part] = with_names(model[part], lambda written, kind=kind: rename(kind, written))  # type: ignore[misc]
        if ARCHITECTURE_KEY in model:
            model[ARCHITECTURE_KEY] = rename("architecture", model[ARCHITECTURE_KEY])
        data_module = _data_module(run)
        if data_module:
            run["data"] = run["data"] | {"name": rename("data", data_module)}
        return replace(self, task=rename("task", self.task), model=model, run=run)

    @property
    def architecture(self) -> str:
        """Name of the architecture."""
        return self.model.get(ARCHITECTURE_KEY) or short_name("architecture", DEFAULT_ARCHITECTURE)

    def adapters(self) -> tuple[str, str]:
        """Names of the input and the output adapter."""
        encoder, decoder = (self.model[part][ADAPTER_KEY] for part in PARTS)
        return encoder, decoder

    # Deprecated dict access, as before interface 1.3.

    def __getitem__(self, name: str) -> Any:
        warnings.warn(
            f"description[{name!r}] is deprecated since interface 2.0: use description.{name}",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def keys(self) -> Iterable[str]:
        return self.to_dict().keys()

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self.keys() else default


USED = tuple(each.name for each in fields(UsedPlugin))
"""Names of the entries of a used plugin."""

REQUIRED = ("format", "task", "model", "data", "run")
"""Required entries of a plain description, except the plugins."""


def read_description(plain: Any, source: str | Path) -> ModelDescription:
    """Read a description, prepare it for the installed plugins, and warn about other versions.

    Args:
        plain: the plain data in the file.
        source: the file or folder, for messages.

    Raises:
        UserError: if the data is damaged or was written by a newer version of this project.
        PluginError: if it needs a plugin that is not installed; the message gives the pip command.
    """
    description = ModelDescription.from_dict(plain, source).prepare(source)
    description.note_versions(source)
    return description


def _adapters_in(part: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the adapters in a plain encoder or decoder configuration, nested ones included."""
    for key, value in part.items():
        if key == ADAPTER_KEY and isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _adapters_in(value)


def _data_module(run: Mapping[str, Any]) -> str | None:
    """Return the name of the data module in a run's configuration."""
    data = run.get("data")
    return data.get("name") if isinstance(data, Mapping) else None


# Validation of plain data. Only the first problem is reported, so later checks may rely on earlier ones.


def _problems(plain: Any) -> Iterator[str]:
    """Yield the problems of a plain description."""
    if not isinstance(plain, Mapping):
        yield "it is not a mapping"
    for name, is_valid in CHECKS.items():
        if name not in plain:
            yield f"{name} is missing"
        elif not is_valid(plain[name]):
            yield _type_problem(name)
    if not (plain.get("seed") is None or _is_int(plain["seed"])):
        yield _type_problem("seed")
    for name in ("model", "run"):
        yield from map(_type_problem, _not_plain(plain[name], name))
    yield from _problems_of_parts(plain["model"])
    yield from _problems_of_run(plain["run"])
    if not all(map(_is_used_plugin, plain["plugins"])):
        yield _type_problem("plugins")


def _problems_of_parts(model: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(model.get(ARCHITECTURE_KEY, ""), str):
        yield _type_problem(f"model.{ARCHITECTURE_KEY}")
    for part in PARTS:
        if part not in model:
            yield f"model.{part} is missing"
        elif not isinstance(model[part], Mapping):
            yield _type_problem(f"model.{part}")
        elif not isinstance(model[part].get(ADAPTER_KEY), str):
            yield _type_problem(f"model.{part}.{ADAPTER_KEY}")


def _problems_of_run(run: Mapping[str, Any]) -> Iterator[str]:
    for section in NAMED_SECTIONS:
        values = run.get(section) or {}
        if not isinstance(values, Mapping) or not isinstance(values.get("name"), str | None):
            yield _type_problem(f"run.{section}")


def _not_plain(value: Any, name: str) -> Iterator[str]:
    """Yield the names of entries of nested data that are not plain."""
    if isinstance(value, Mapping):
        for key, child in value.items():
            if not isinstance(key, str):
                yield name
            yield from _not_plain(child, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for child in value:
            yield from _not_plain(child, name)
    elif not isinstance(value, str | int | float | None):
        yield name


def _type_problem(name: str) -> str:
    return f"{name} has the wrong type"


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_used_plugin(value: Any) -> bool:
    return (
        isinstance(value, Mapping) and all(isinstance(value.get(name), str) for name in USED) and value["kind"] in NOUNS
    )


CHECKS = {
    "format": _is_int,
    "task": lambda value: isinstance(value, str),
    "model": lambda value: isinstance(value, Mapping),
    "data": lambda value: isinstance(value, Mapping),
    "run": lambda value: isinstance(value, Mapping),
    "plugins": lambda value: isinstance(value, Sequence) and not isinstance(value, str),
}
"""Validation functions of the entries of a plain description."""
