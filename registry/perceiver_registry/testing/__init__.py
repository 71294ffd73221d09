"""Executable contract of adapters, architectures and plugins, for the tests of plugin authors.

Like scikit-learn's ``check_estimator``, :func:`check_adapter`, :func:`check_architecture` and :func:`check_plugin`
build small models on random data, run every check of the contract, and raise one AssertionError that lists all
failures. In pytest, each check can be a test of its own::

    from perceiver_registry.testing import plugin_checks

    @pytest.mark.parametrize("check", plugin_checks("my-plugin"))
    def test_contract(check):
        check()

The checks are defined in :mod:`~perceiver_registry.testing.spec_contract`,
:mod:`~perceiver_registry.testing.model_contract`, :mod:`~perceiver_registry.testing.architecture_contract`,
:mod:`~perceiver_registry.testing.plugin_contract` and
:mod:`~perceiver_registry.testing.data_contract`.
Importing this package does not import torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from perceiver_registry.errors import UnknownNameError, near
from perceiver_registry.registry import Entry, registry
from perceiver_registry.specs import AdapterKind, AdapterSpec, ArchitectureSpec
from perceiver_registry.testing.checks import Check, report
from perceiver_registry.testing.renamed import RENAMED_CHECKS

__all__ = [
    "Check",
    "adapter_checks",
    "architecture_checks",
    "check_adapter",
    "check_architecture",
    "check_plugin",
    "plugin_checks",
]


def check_adapter(
    adapter: AdapterSpec | Entry[AdapterSpec] | str,
    kind: AdapterKind | None = None,
    *,
    example: Mapping[str, Any] | None = None,
    partner: AdapterSpec | None = None,
    skip: Collection[str] = (),
) -> None:
    """Check that an adapter fulfils the contract.

    Args:
        adapter: its spec (registered or not), its entry in the registry, or its registered name.
        kind: "input" or "output", if the name is registered for both. None: check both.
        example: values by dotted flag that override those of the spec's ``example``, to check another configuration.
        partner: input adapter to combine an output adapter with. None: a generic one or, if the output adapter
            rejects it, the registered input adapter of the same name.
        skip: names of checks that do not apply (``{"exports"}`` if control flow depends on the data).

    Raises:
        AssertionError: if a check fails; the message has a line for each failure.
        UnknownNameError: if the adapter or a check to skip does not exist.
    """
    report(adapter_checks(adapter, kind, example=example, partner=partner, skip=skip))


def adapter_checks(
    adapter: AdapterSpec | Entry[AdapterSpec] | str,
    kind: AdapterKind | None = None,
    *,
    example: Mapping[str, Any] | None = None,
    partner: AdapterSpec | None = None,
    skip: Collection[str] = (),
) -> list[Check]:
    """Return the checks of :func:`check_adapter` as callables. A check that does not apply raises SkipTest."""
    from perceiver_registry.testing import model_contract, spec_contract
    from perceiver_registry.testing.subjects import AdapterSubject

    checks = [
        check
        for spec in _specs(adapter, kind)
        for subject in [AdapterSubject(spec, example or {}, partner)]
        for check in (spec_contract.CONTRACT | model_contract.CONTRACT).checks(subject, spec.kind)
    ]
    return _without(checks, skip)


def check_architecture(
    architecture: ArchitectureSpec | Entry[ArchitectureSpec] | str, *, skip: Collection[str] = ()
) -> None:
    """Check that an architecture fulfils the contract.

    Args:
        architecture: its spec (registered or not), its entry in the registry, or its registered name.
        skip: names of checks that do not apply (``{"positions_are_independent"}`` if each output depends on others).

    Raises:
        AssertionError: if a check fails; the message has a line for each failure.
        UnknownNameError: if the architecture or a check to skip does not exist.
    """
    report(architecture_checks(architecture, skip=skip))


def architecture_checks(
    architecture: ArchitectureSpec | Entry[ArchitectureSpec] | str, *, skip: Collection[str] = ()
) -> list[Check]:
    """Return the checks of :func:`check_architecture` as callables."""
    from perceiver_registry.testing.architecture_contract import CONTRACT
    from perceiver_registry.testing.subjects import ArchitectureSubject

    if isinstance(architecture, str):
        architecture = registry().get("architecture", architecture)
    spec = architecture.spec if isinstance(architecture, Entry) else architecture
    return _without(CONTRACT.checks(ArchitectureSubject(spec)), skip)


def check_plugin(plugin: str | ModuleType, *, skip: Collection[str] = ()) -> None:
    """Check that a plugin and all adapters and architectures that it registers fulfil the contract.

    Args:
        plugin: name of its entry point (``distribution:name`` if several have that name), or its module.
        skip: names of checks that do not apply.

    Raises:
        AssertionError: if a check fails; the message has a line for each failure.
        UnknownNameError: if the plugin is not installed or a check to skip does not exist.
    """
    report(plugin_checks(plugin, skip=skip))


def plugin_checks(plugin: str | ModuleType, *, skip: Collection[str] = ()) -> list[Check]:
    """Return the checks of :func:`check_plugin` as callables. A check that does not apply raises SkipTest."""
    from perceiver_registry.testing import data_contract, plugin_contract
    from perceiver_registry.testing.subjects import PluginSubject

    subject = PluginSubject(plugin)
    checks = (plugin_contract.CONTRACT | data_contract.CONTRACT).checks(subject)
    for spec in (*subject.specs("input"), *subject.specs("output")):
        checks += adapter_checks(spec, partner=subject.partner(spec))
    for architecture in subject.specs("architecture"):
        checks += architecture_checks(architecture)
    return _without(checks, skip)


def _specs(adapter: AdapterSpec | Entry[AdapterSpec] | str, kind: AdapterKind | None) -> list[AdapterSpec]:
    if isinstance(adapter, AdapterSpec):
        return [adapter]
    if isinstance(adapter, Entry):
        return [adapter.spec]
    if kind is not None:
        return [registry().get(kind, adapter).spec]
    found = [registry().find(kind, adapter) for kind in ("input", "output")]
    if not any(found):
        names = {entry.name for kind in ("input", "output") for entry in registry().entries(kind)}
        raise UnknownNameError(f"unknown adapter {adapter!r}; {near(adapter, names)}")
    return [entry.spec for entry in found if entry is not None]


def _without(checks: list[Check], skip: Collection[str]) -> list[Check]:
    names = {check.name for check in checks}
    skipped = set()
    for name in skip:
        current = RENAMED_CHECKS.get(name, name)
        if current != name:
            message = f"skip: {name} is deprecated since interface 2.0: use {current}"
            warnings.warn(message, DeprecationWarning, stacklevel=3)
        if current not in names:
            raise UnknownNameError(f"skip: unknown check {name!r}; {near(name, names)}")
        skipped.add(current)
    return [check for check in checks if check.name not in skipped]
