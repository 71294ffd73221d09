"""Caches for what libraries compute again in each run of a command, and so hundreds of times in one test process."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest


def cache_types(patch: pytest.MonkeyPatch) -> None:
    """Cache the arguments of classes and the origins of types, a third of the time until a command trains.

    Other versions of jsonargparse may lack these functions; nothing is cached then.
    """
    import jsonargparse._signatures

    # Not for jsonargparse's other modules: within a class, the arguments of its bases depend on the class.
    signatures = [jsonargparse._signatures]
    modules = [module for name, module in sys.modules.items() if name.startswith("jsonargparse.")]
    for name, importing in {"get_signature_parameters": signatures, "get_typehint_origin": modules}.items():
        function = getattr(jsonargparse._signatures, name, None)
        for module in importing:
            if function is not None and vars(module).get(name) is function:
                patch.setattr(module, name, cache_results(function))


def cache_operators(patch: pytest.MonkeyPatch) -> None:
    """Cache the operators that the ONNX exporter knows; it parses their source for half a second in each export.

    Other versions of torch may lack this function; nothing is cached then.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return
    function = getattr(ONNXRegistry, "from_torchlib", None)
    if function is not None:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache_results(function)))


def cache_results(function: Callable[..., Any]) -> Callable[..., Any]:
    """Cache the results of a function by its hashable arguments. Lists are copied, with their items."""
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
