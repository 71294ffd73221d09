"""The hooks that a plugin may implement. Each returns specs and imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from perceiver_registry.specs import AdapterSpec, DataSpec, FormatSpec, MigrationSpec, ModelSpec, TaskSpec

PROJECT = "perceiver"
"""The name of the pluggy project, and of the entry-point group that plugins are found in."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def perceiver_adapters() -> Iterable[AdapterSpec]:  # type: ignore[empty-body]
    """The input and output adapters of this plugin."""


@hookspec
def perceiver_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """The tasks of this plugin."""


@hookspec
def perceiver_data() -> Iterable[DataSpec]:  # type: ignore[empty-body]
    """The data modules of this plugin."""


@hookspec
def perceiver_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """The named models of this plugin."""


@hookspec
def perceiver_formats() -> Iterable[FormatSpec]:  # type: ignore[empty-body]
    """The formats of models of this plugin."""


@hookspec
def perceiver_migrations() -> Iterable[MigrationSpec]:  # type: ignore[empty-body]
    """The migrations of models that older versions of this plugin wrote."""
