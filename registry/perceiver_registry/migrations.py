"""Migrations of models that were written by older versions of a plugin."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perceiver_registry.errors import PluginError, in_one_line
from perceiver_registry.registry import Entry, registry
from perceiver_registry.specs import MigrationSpec

if TYPE_CHECKING:
    from torch import Tensor


class Migration:
    """Changes of a plugin's configs and parameters between two of its versions.

    A subclass overrides one or both methods. They are called for each model that uses the plugin's distribution and was
    written by a version before that of the :class:`~perceiver_registry.MigrationSpec`, so they have to check which
    adapters the model has.
    """

    def description(self, description: dict[str, Any]) -> dict[str, Any]:
        """Return the plain description of a model in its new form.

        Args:
            description: ``"model"``: the model's configuration, in which ``"encoder"`` and ``"decoder"`` name their
                adapters under ``"adapter"``; ``"data"``: what the data module's ``description()`` returned; ``"run"``:
                the run's configuration; ``"task"`` and ``"plugins"``: the names that the model uses. A copy, which may
                be modified.
        """
        return description

    def weights(self, weights: dict[str, Tensor], description: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the weights of a model under their new names.

        Args:
            weights: the model's state dict (``"input_adapter.embedding.weight"``). A copy, which may be modified.
            description: the plain description of the model before migrations.
        """
        return weights


def find_migrations(versions: Iterable[tuple[str, str]]) -> list[Entry[MigrationSpec]]:
    """Return the migrations that a model needs, oldest first.

    Args:
        versions: names and versions of the distributions that wrote the model.
    """
    from packaging.version import InvalidVersion, Version

    found = []
    for distribution, version in versions:
        try:
            written = Version(version)
        except InvalidVersion:  # a local file, or a damaged description
            continue
        found += [
            entry
            for entry in registry().entries("migration")
            if entry.plugin.is_of(distribution) and written < Version(entry.spec.before)
        ]
    return sorted(dict.fromkeys(found), key=lambda entry: Version(entry.spec.before))


def apply_migration(entry: Entry[MigrationSpec], method: str, source: str | Path, value: Any, *others: Any) -> Any:
    """Call a method of a migration.

    Args:
        entry: the migration.
        method: name of the method.
        source: the file or folder of the model, for messages.
        value: argument that the method returns modified.
        others: its other arguments.

    Raises:
        PluginError: if it fails; the message names the migration and its plugin.
    """
    failed = f"{source}: migration {entry.name!r} ({entry.plugin}) failed"
    migration = entry.resolve("migration")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # migrations may print
            result = getattr(migration(), method)(value, *others)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # third-party code on untrusted data
        raise PluginError(f"{failed}: {in_one_line(error)}") from error
    if not isinstance(result, Mapping):
        raise PluginError(f"{failed}: {method} must return a mapping")
    return dict(result)
