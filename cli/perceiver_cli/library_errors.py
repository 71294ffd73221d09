"""One-line messages for errors that libraries raise about options."""

from __future__ import annotations

import re
import traceback

from perceiver_registry.extras import MissingRequirement, find_requirement, missing_requirement

REQUIREMENT = re.compile(
    r"[Rr]equirement '([^']+)' not met|pip install (?:-U )?'?([\w.\[\]<>=!~, -]*[\w\]])'?`|Neither `(\w+)` nor"
)
"""Requirement of a missing package, or its pip command, in Lightning's errors."""

MODULE = re.compile(r"No module named '([\w]+)")
"""Name of the module in Python's error about a missing module."""

LIGHTNING = ("pytorch_lightning", "lightning_fabric", "lightning_utilities")

LOWER_PACKAGES = ("torch",)
"""Packages that may raise an error caused by Lightning's arguments."""


def missing_package(message: str, subject: str | None = None) -> str | None:
    """Compose the message about a missing package, with its pip command.

    Args:
        message: an error's message.
        subject: name of the class that needs the package. None: the one in the message.

    Returns:
        The message, or None if the error is not about a missing package.
    """
    found = REQUIREMENT.search(message) or MODULE.search(message)
    if found is None:
        return None
    requirement = next(filter(None, found.groups()))
    name = re.split(r"[\[<>=!~ ,]", requirement)[0]
    needed_by = subject or _quoted_name(message) or "this"
    missing = find_requirement(name) or MissingRequirement(name, requirement)
    return f"{needed_by}: {missing}"


def _quoted_name(message: str) -> str | None:
    """Return the name of the class in a message."""
    found = re.search(r"class_path '(?:[\w.]*\.)?(\w+)'|`([A-Z]\w+)`", message)
    return next(filter(None, found.groups())) if found else None


def explain(error: BaseException) -> str | None:
    """Explain an error that a library raises about its arguments; None if this project may have caused it."""
    message = " ".join(str(error).split())
    missing = missing_requirement(error, extras=_plugins_that_failed(error))
    if missing is not None:
        return f"{_innermost_class(error)}: {missing}"
    if isinstance(error, ImportError):
        return missing_package(message, _class_that_failed(error))
    subject = _class_that_failed(error) if not isinstance(error, AssertionError) else None
    return f"{subject}: {message or type(error).__name__} (--debug shows more)" if subject else None


def _class_that_failed(error: BaseException) -> str | None:
    """Return the name of Lightning's class whose method raised an error; None if other code raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    while frames and _package(frames[-1]) in LOWER_PACKAGES:
        frames.pop()
    if not frames or _package(frames[-1]) not in LIGHTNING:
        return None
    owners = [type(frame.f_locals["self"]) for frame in reversed(frames) if "self" in frame.f_locals]
    return next((owner.__name__ for owner in owners if owner.__module__.partition(".")[0] in LIGHTNING), None)


def _innermost_class(error: BaseException) -> str:
    """Return the name of the class whose method raised an error; that of the function if no method did.

    Named tuples are records of other classes and do not count.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [type(frame.f_locals["self"]) for frame in reversed(frames) if "self" in frame.f_locals]
    names = [owner.__name__ for owner in owners if "importlib" not in owner.__module__ and not issubclass(owner, tuple)]
    return next(iter(names), frames[-1].f_code.co_name if frames else "this")


def _plugins_that_failed(error: BaseException) -> list[str]:
    """Return the parts of the module names in a traceback; extras have the names of plugins' packages."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [part for frame in frames for part in str(frame.f_globals.get("__name__", "")).split(".")]


def _package(frame: object) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]  # type: ignore[attr-defined]
