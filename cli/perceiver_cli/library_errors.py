"""Errors of libraries about what a person asked for, in one line."""

from __future__ import annotations

import re
import shlex
import traceback

REQUIREMENT = re.compile(r"[Rr]equirement '([^']+)' not met|pip install (?:-U )?'?([\w.\[\]<>=!~, -]*[\w\]])'?`")
"""Requirement of a missing package, or the command that installs it, in Lightning's errors."""

MODULE = re.compile(r"No module named '([\w]+)")
"""Name of the module in Python's own error about a missing one."""

LIGHTNING = ("pytorch_lightning", "lightning_fabric", "lightning_utilities")

BELOW = ("torch",)
"""Packages that only pass on what was wrong with what Lightning asked of them."""


def missing_package(message: str, subject: str | None = None) -> str | None:
    """Say which package is missing, and how to install it.

    Args:
        message: an error's message.
        subject: what needs the package. None: what the message names.

    Returns:
        None if the message is not about a missing package.
    """
    found = REQUIREMENT.search(message) or MODULE.search(message)
    if found is None:
        return None
    requirement = next(filter(None, found.groups()))
    name = re.split(r"[\[<>=!~ ,]", requirement)[0]
    needed_by = subject or _quoted_name(message) or "this"
    return f"{needed_by}: needs {name}, which is not installed (pip install {shlex.quote(requirement)})"


def _quoted_name(message: str) -> str | None:
    """The name of the class that a message is about."""
    found = re.search(r"class_path '(?:[\w.]*\.)?(\w+)'|`([A-Z]\w+)`", message)
    return next(filter(None, found.groups())) if found else None


def explain(error: BaseException) -> str | None:
    """Explain an error that is a library's complaint about a wrong use of it; None if it may be a fault of ours."""
    message = " ".join(str(error).split())
    if isinstance(error, ImportError):
        return missing_package(message, _class_that_failed(error))
    subject = _class_that_failed(error) if not isinstance(error, AssertionError) else None
    return f"{subject}: {message or type(error).__name__} (--debug shows more)" if subject else None


def _class_that_failed(error: BaseException) -> str | None:
    """The class of Lightning's whose method failed, if nobody else's code did below it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    while frames and _package(frames[-1]) in BELOW:
        frames.pop()
    if not frames or _package(frames[-1]) not in LIGHTNING:
        return None
    owners = [type(frame.f_locals["self"]) for frame in reversed(frames) if "self" in frame.f_locals]
    return next((owner.__name__ for owner in owners if owner.__module__.partition(".")[0] in LIGHTNING), None)


def _package(frame: object) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]  # type: ignore[attr-defined]
