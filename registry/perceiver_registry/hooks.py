"""Hooks that plugins implement. They return specs and have no slow imports."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from perceiver_registry.specs import (
    AdapterSpec,
    ArchitectureSpec,
    DataSpec,
    FormatSpec,
    MigrationSpec,
    ModelSpec,
    TaskSpec,
)

PROJECT = "perceiver"
"""Name of the pluggy project and of the entry-point group of plugins."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def perceiver_adapters() -> Iterable[AdapterSpec]:  # type: ignore[empty-body]
    """Return the specs of the input and output adapters of this plugin."""


@hookspec
def perceiver_architectures() -> Iterable[ArchitectureSpec]:  # type: ignore[empty-body]
    """Return the specs of the architectures of this plugin."""


@hookspec
def perceiver_tasks() -> Iterable[TaskSpec]:  # type: ignore[empty-body]
    """Return the specs of the tasks of this plugin."""


@hookspec
def perceiver_data() -> Iterable[DataSpec]:  # type: ignore[empty-body]
    """Return the specs of the data modules of this plugin."""


@hookspec
def perceiver_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Return the specs of the named models of this plugin."""


@hookspec
def perceiver_formats() -> Iterable[FormatSpec]:  # type: ignore[empty-body]
    """Return the specs of the model formats of this plugin."""


@hookspec
def perceiver_migrations() -> Iterable[MigrationSpec]:  # type: ignore[empty-body]
    """Return the specs of migrations of models that older versions of this plugin wrote."""
