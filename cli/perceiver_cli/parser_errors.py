"""Errors of jsonargparse about values, composed anew from the types of the flags.

Which value is wrong is found by converting each one alone, and what is wrong with it is said by
:mod:`perceiver_registry.option_types`. One fact is only in the text of jsonargparse's error: that an import path within
a value is not allowed. Where a version words that differently, the message is the one about a wrong value.
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
"""Sentence of jsonargparse's about an import path that the policy denies (4.53 and later)."""

CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
"""Keys of a class with its options."""


class Problem(NamedTuple):
    """What is wrong with a value.

    Attributes:
        option: the dotted option within the value, such as ".save_dir"; empty: the value itself.
        reason: ": must be ..." or " is missing".
    """

    option: str
    reason: str


def refused_path(message: str) -> str | None:
    """Return the import path that jsonargparse refused, or None if its error is about something else."""
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
    """Compose the error to raise for one that jsonargparse has raised about a run's values.

    Args:
        error: jsonargparse's error.
        values: the values, by dotted name.
        hints: the types of the flags, by dotted name.
        required: names of the flags that have no default.
        composed: names of the flags whose values jsonargparse composes, and which may be wrong as a whole only.
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
        return UserError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    where = next(map(locate, composed), "the configuration")
    package = missing_package(" ".join(str(error).split()))
    return UserError(package or f"{where}: not a valid value (--help shows what is; --debug shows more)")


def problem_of(hint: Any, value: Any) -> Problem | None:
    """Find out what is wrong with a value; None if nothing is.

    Args:
        hint: the type of its flag.
        value: a text or plain data. None: it is not given, which is never wrong.
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
    return Problem("", f": {requirement(hint, next(_names(value), value))}")


def _specs(value: Any) -> Iterator[Mapping[str, Any]]:
    """The classes with their options in a value, which may be a list of them or the name of one."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, str):
            yield {"class_path": each}
        elif isinstance(each, Mapping) and isinstance(each.get("class_path"), str):
            yield each


def _names(value: Any) -> Iterator[str]:
    return (spec["class_path"] for spec in _specs(value))


def _problem_of_class(hint: Any, spec: Mapping[str, Any]) -> Problem | None:
    """What is wrong with the options of a class; None if nothing is, or if it is not known."""
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
            return Problem(f".{name}", f": {found.__name__} has no such option; {near}")
        problem = problem_of(hints[name], value)
        if problem is not None:
            return Problem(f".{name}{problem.option}", problem.reason)
    missing = next((name for name in required if given.get(name) is None), None)
    return Problem(f".{missing}", " is missing") if missing else None


def _find_class(hint: Any, name: str) -> type | None:
    """The class that a value names: a known subclass by its name, or what an import path leads to."""
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
    """The types of a class's options by name, and the names of those that have no default."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "own", fail_untyped=False, instantiate=False)
    actions = [action for action in parser._actions if action.dest.startswith("own.") and not _is_help(action)]
    hints = {action.dest.removeprefix("own."): getattr(action, "_typehint", None) or Any for action in actions}
    return hints, [action.dest.removeprefix("own.") for action in actions if action.required]


def _is_help(action: argparse.Action) -> bool:
    return action.dest.endswith(".help")
