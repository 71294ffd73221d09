"""One-line messages for errors of libraries about wrong options."""

from __future__ import annotations

import re
import shlex
import traceback

REQUIREMENT = re.compile(r"[Rr]equirement '([^']+)' not met|pip install (?:-U )?'?([\w.\[\]<>=!~, -]*[\w\]])'?`")
"""Requirement of a missing package, or its pip command, in Lightning's errors."""

MODULE = re.compile(r"No module named '([\w]+)")
"""Name of the module in Python's error about a missing module."""

LIGHTNING = ("pytorch_lightning", "lightning_fabric", "lightning_utilities")

BELOW = ("torch",)
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
    return f"{needed_by}: needs {name}, which is not installed (pip install {shlex.quote(requirement)})"


def _quoted_name(message: str) -> str | None:
    """Return the name of the class in a message."""
    found = re.search(r"class_path '(?:[\w.]*\.)?(\w+)'|`([A-Z]\w+)`", message)
    return next(filter(None, found.groups())) if found else None


def explain(error: BaseException) -> str | None:
    """Explain an error that a library raises about its arguments; None if this project may have caused it."""
    message = " ".join(str(error).split())
    if isinstance(error, ImportError):
        return missing_package(message, _class_that_failed(error))
    subject = _class_that_failed(error) if not isinstance(error, AssertionError) else None
    return f"{subject}: {message or type(error).__name__} (--debug shows more)" if subject else None


def _class_that_failed(error: BaseException) -> str | None:
    """Return the name of Lightning's class whose method raised an error; None if other code raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    while frames and _package(frames[-1]) in BELOW:
        frames.pop()
    if not frames or _package(frames[-1]) not in LIGHTNING:
        return None
    owners = [type(frame.f_locals["self"]) for frame in reversed(frames) if "self" in frame.f_locals]
    return next((owner.__name__ for owner in owners if owner.__module__.partition(".")[0] in LIGHTNING), None)


def _package(frame: object) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]  # type: ignore[attr-defined]
