"""The contract of adapters and plugins as code, for the tests of whoever writes one.

In the spirit of scikit-learn's ``check_estimator``: :func:`check_adapter` and :func:`check_plugin` build what they are
given on small random data, check each sentence of the contract, and raise one AssertionError that lists all that is
broken. With pytest, each check can be a test of its own::

    from perceiver_registry.testing import plugin_contract

    @pytest.mark.parametrize("check", plugin_checks("my_package"))
    def test_the_contract(check):
        check()

The sentences stand in :mod:`~perceiver_registry.testing.spec_contract`,
:mod:`~perceiver_registry.testing.model_contract`, :mod:`~perceiver_registry.testing.plugin_contract` and
:mod:`~perceiver_registry.testing.data_contract`.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

from perceiver_registry.errors import UnknownNameError, near
from perceiver_registry.registry import Entry, registry
from perceiver_registry.specs import AdapterKind, AdapterSpec
from perceiver_registry.testing.checks import Check, report

__all__ = ["Check", "adapter_checks", "check_adapter", "check_plugin", "plugin_checks"]


def check_adapter(
    adapter: AdapterSpec | Entry[AdapterSpec] | str,
    kind: AdapterKind | None = None,
    *,
    example: Mapping[str, Any] | None = None,
    partner: AdapterSpec | None = None,
    skip: Collection[str] = (),
) -> None:
    """Checks that an adapter keeps the contract.

    Args:
        adapter: its spec (which need not be registered), its entry in the registry, or its registered name.
        kind: "input" or "output", where a name stands for both. None: both are checked.
        example: values by dotted flag that go over the spec's own ``example``, to check another configuration.
        partner: the input adapter that an output adapter is tried with. None: a generic one or, if the output adapter
            refuses that, the registered input adapter of its own name.
        skip: names of checks that do not apply (``{"exports"}`` for one whose control flow depends on the data).

    Raises:
        AssertionError: if it breaks the contract; the message has a line for each check that failed.
        UnknownNameError: if there is no such adapter, or no such check to skip.
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
    """The checks of :func:`check_adapter`, each to be called. One that does not apply raises ``unittest.SkipTest``."""
    from perceiver_registry.testing import model_contract, spec_contract
    from perceiver_registry.testing.subjects import AdapterSubject

    checks = [
        check
        for spec in _specs(adapter, kind)
        for subject in [AdapterSubject(spec, example or {}, partner)]
        for check in (spec_contract.CONTRACT | model_contract.CONTRACT).checks(subject, spec.kind)
    ]
    return _without(checks, skip)


def check_plugin(plugin: str | ModuleType, *, skip: Collection[str] = ()) -> None:
    """Checks that a plugin, and all adapters that it registers, keep the contract.

    Args:
        plugin: name of its entry point (``distribution:name`` where several have that name), or its module.
        skip: names of checks that do not apply.

    Raises:
        AssertionError: if it breaks the contract; the message has a line for each check that failed.
        UnknownNameError: if no such plugin is installed, or if there is no such check to skip.
    """
    report(plugin_checks(plugin, skip=skip))


def plugin_checks(plugin: str | ModuleType, *, skip: Collection[str] = ()) -> list[Check]:
    """The checks of :func:`check_plugin`, each to be called. One that does not apply raises ``unittest.SkipTest``."""
    from perceiver_registry.testing import data_contract, plugin_contract
    from perceiver_registry.testing.subjects import PluginSubject

    subject = PluginSubject(plugin)
    checks = (plugin_contract.CONTRACT | data_contract.CONTRACT).checks(subject)
    for spec in (*subject.specs("input"), *subject.specs("output")):
        checks += adapter_checks(spec, partner=subject.partner(spec))
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
    for name in skip:
        if name not in names:
            raise UnknownNameError(f"skip: there is no check {name!r}; {near(name, names)}")
    return [check for check in checks if check.name not in skip]
