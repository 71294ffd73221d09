"""Caches of library functions that each run of a command calls again, hundreds of times in one test process."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest


def cache_types(patch: pytest.MonkeyPatch) -> None:
    """Cache functions of jsonargparse on the arguments of classes, on types and on the flags of parsers.

    Functions that other versions of jsonargparse lack are skipped.
    """
    import jsonargparse._signatures
    import jsonargparse._typehints

    # Not for jsonargparse's other modules: within a class, the arguments of its bases depend on the class.
    signatures = [jsonargparse._signatures]
    modules = [module for name, module in sys.modules.items() if name.startswith("jsonargparse.")]
    hint = getattr(jsonargparse._typehints, "ActionTypeHint", None)
    for name, wrap, users in (
        ("get_signature_parameters", cache_results, signatures),
        ("get_typehint_origin", cache_results, modules),
        ("get_unaliased_type", cache_by_identity, modules),
        ("get_help_types", cache_by_identity, modules),
        ("find_action_and_subcommand", cache_by_parser, modules),
        ("is_supported_typehint", cache_by_identity, [hint]),
        ("is_return_subclass_typehint", cache_by_identity, [hint]),
    ):
        function = next((vars(user)[name] for user in users if name in vars(user)), None)
        for user in users:
            if function is not None and vars(user).get(name) is function:
                cached = wrap(getattr(user, name))
                patch.setattr(user, name, staticmethod(cached) if user is hint else cached)


def cache_operators(patch: pytest.MonkeyPatch) -> None:
    """Cache the operators of the ONNX exporter, which parses their source for half a second in each export.

    Nothing is cached for versions of torch that lack this function.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return
    function = getattr(ONNXRegistry, "from_torchlib", None)
    if function is not None:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache_results(function)))


def cache_results(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache the results of a function by its arguments, if hashable. Lists are copied with their items."""
    results: dict[Any, Any] = {}

    @wraps(function)
    def cached(*args: Any, **options: Any) -> Any:
        key = (args, *options.items())
        try:
            found = results.get(key, results)
        except TypeError:  # an unhashable argument
            return function(*args, **options)
        if found is results:
            found = results[key] = function(*args, **options)
        return [copy.copy(item) for item in found] if isinstance(found, list) else found

    return cached


def cache_by_identity(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache the results of a function of a type by identity, as equal unions may order their types differently."""
    results: dict[Any, Any] = {}

    @wraps(function)
    def cached(hint: Any, **options: Any) -> Any:
        key = (id(hint), *options.items())
        if key not in results:
            results[key] = (hint, function(hint, **options))  # keeps the hint alive, so that its id is not reused
        return results[key][1]

    return cached


def cache_by_parser(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache the actions that a function finds in a parser, until the parser gets new ones."""

    @wraps(function)
    def cached(parser: Any, dest: str, exclude: Any = None) -> Any:
        actions = parser._actions
        results = vars(parser).setdefault("_found_actions", {})
        key = (len(actions), id(actions[-1]) if actions else None, dest, exclude)
        if key not in results:
            results[key] = function(parser, dest, exclude=exclude)
        return results[key]

    return cached
