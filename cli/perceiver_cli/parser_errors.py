"""Messages for jsonargparse's errors about values, composed from the types of the flags.

The wrong value is found by converting each value alone; :mod:`perceiver_registry.option_types` describes the problem.
Only a refused import path is read from the text of jsonargparse's error. If a version words it differently, the message
is that of a wrong value.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser

from perceiver_cli import allowed
from perceiver_cli.library_errors import missing_package
from perceiver_cli.suggestions import suggest_name
from perceiver_registry import UserError
from perceiver_registry.option_types import ConversionError, classes, convert, requirement, spell, subclasses

REFUSED = re.compile(r"Importing '([\w.]+)' is not allowed")
"""jsonargparse's message about a denied import path (4.53 and later)."""

CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
"""Keys of a class with options in plain data."""


class Problem(NamedTuple):
    """Problem with a value.

    Attributes:
        option: dotted option within the value, such as ".save_dir"; empty: the value itself.
        reason: ": must be ..." or ": missing".
    """

    option: str
    reason: str


def refused_path(message: str) -> str | None:
    """Return the import path that jsonargparse refused, or None for another error."""
    found = REFUSED.search(message)
    return found[1] if found else None


def explain(
    error: Exception,
    values: Mapping[str, Any],
    hints: Mapping[str, Any],
    required: Iterable[str],
    composed: Iterable[str],
    locate: Callable[[str], str],
) -> UserError:
    """Compose the error to raise instead of jsonargparse's error about a run's values.

    Args:
        error: jsonargparse's error.
        values: the values, by dotted name.
        hints: types of the flags, by dotted name.
        required: names of the required flags.
        composed: names of the flags with composed values, which may be wrong as a whole only.
        locate: names an option with its source.
    """
    for name, value in values.items():
        if name not in hints:
            continue
        problem = problem_of(hints[name], value)
        if problem is not None:
            return UserError(f"{locate(name + problem.option)}{problem.reason}")
    missing = [f"--{name}" for name in required if values.get(name) is None]
    if missing:
        return UserError(f"{' and '.join(missing)}: missing")
    where = next(map(locate, composed), "the configuration")
    package = missing_package(" ".join(str(error).split()))
    return UserError(package or f"{where}: invalid value (see --help; --debug shows the traceback)")


def problem_of(hint: Any, value: Any) -> Problem | None:
    """Return the problem with a value, or None if it is valid.

    Args:
        hint: type of the flag.
        value: text or plain data. None: not given, always valid.
    """
    if value is None:
        return None
    try:
        convert(hint, value)
    except ConversionError as error:
        return _problem_of_refused(hint, value, error.cause)
    except ImportError as error:
        return Problem("", f": {missing_package(str(error)) or 'cannot be imported'}")
    return None


def _problem_of_refused(hint: Any, value: Any, cause: str) -> Problem:
    path = refused_path(cause)
    if path is not None:
        return Problem("", f": {allowed.refusal(path)}")
    missing = missing_package(" ".join(cause.split()))
    if missing is not None:
        return Problem("", f": {missing}")
    for spec in _specs(value):
        problem = _problem_of_class(hint, spec)
        if problem is not None:
            return problem
    unknown = (name for name in _names(value) if _find_class(hint, name) is None)
    return Problem("", f": {requirement(hint, next(unknown, next(_names(value), value)))}")


def _specs(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the classes with their options in a value: a class name, a class with options, or a list of these."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield {"class_path": each}
        elif isinstance(each, Mapping) and isinstance(each.get("class_path"), str):
            yield each


def _names(value: Any) -> Iterator[str]:
    return (spec["class_path"] for spec in _specs(value))


def _problem_of_class(hint: Any, spec: Mapping[str, Any]) -> Problem | None:
    """Return the problem with the options of a class; None if they are valid or the class is unknown."""
    found = _find_class(hint, spec["class_path"])
    if found is None:
        return None
    hints, required = _options_of(found)
    options = spec.get("init_args") or {}
    if not isinstance(options, Mapping):
        return Problem(".init_args", f": must be a mapping, got {spell(options)}")
    given = {**options, **{key: each for key, each in spec.items() if key not in CLASS_KEYS}}
    for name, value in given.items():
        if name not in hints:
            near = suggest_name(name, hints, otherwise=f"known: {', '.join(hints)}")
            return Problem(f".{name}", f": {found.__name__} has no such option ({near})")
        problem = problem_of(hints[name], value)
        if problem is not None:
            return Problem(f".{name}{problem.option}", problem.reason)
    missing = next((name for name in required if given.get(name) is None), None)
    return Problem(f".{missing}", ": missing") if missing else None


def _find_class(hint: Any, name: str) -> type | None:
    """Find a class by the name of a known subclass or by its import path."""
    known = {each.__name__: each for base in classes(hint) for each in (base, *subclasses(base))}
    if name in known:
        return known[name]
    for base in classes(hint):
        try:
            found: type = convert(type[base], name)
            return found
        except (ConversionError, ImportError, AttributeError):
            continue
    return None


def _options_of(cls: type) -> tuple[dict[str, Any], list[str]]:
    """Return the types of a class's options by name, and the names of the required ones."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "own", fail_untyped=False, instantiate=False)
    actions = [action for action in parser._actions if action.dest.startswith("own.") and not _is_help(action)]
    hints = {action.dest.removeprefix("own."): getattr(action, "_typehint", None) or Any for action in actions}
    return hints, [action.dest.removeprefix("own.") for action in actions if action.required]


def _is_help(action: argparse.Action) -> bool:
    return action.dest.endswith(".help")
