"""Errors that are the user's to mend. The command prints them as one line and exits with code 2."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Sequence

from perceiver_registry.escaping import escape_line

OWN_PACKAGES = ("perceiver_core", "perceiver_registry", "perceiver_plugins", "perceiver_cli")

PROGRAMMING_ERRORS = (TypeError, AttributeError, NameError)


class UserError(Exception):
    """Wrong use: a name, a file, a value or a combination that cannot work.

    The message is one line that says what was wrong, where it came from (file, flag, plugin) and what would be right.
    """


class UnknownNameError(UserError, LookupError):
    """No object of that kind is registered under the name that was given."""


class AmbiguousNameError(UserError, LookupError):
    """Several distributions register an object of that kind under the name that was given."""


class PluginError(UserError):
    """A plugin could not be imported, what it registered breaks the registry's rules, or it is missing."""


class RunError(Exception):
    """A run that failed for a reason that its message explains in one line (exit code 1)."""


def in_one_line(error: BaseException) -> str:
    """The type and the message of any error, in one line that a terminal shows as it is."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # not even that need work in a stranger's error
        message = ""
    printable = escape_line(message[:300])
    return f"{type(error).__name__}: {printable}" if printable else type(error).__name__


def near(name: str, known: Iterable[str], listed: Iterable[str] | str | None = None) -> str:
    """Suggest names after an unknown ``name``: the nearest ones or, if none is near, some of those that are known.

    Args:
        name: the unknown name.
        known: the known names.
        listed: names to list if none is near, or a text that says where they are. None: the known names.
    """
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return f"did you mean {' or '.join(repr(shorten(match)) for match in matches)}?"
    if isinstance(listed, str):
        return listed
    if listed is not None:
        return f"known: {some_of(sorted(listed))}"
    nearest = difflib.get_close_matches(name, known, n=MAX_LISTED, cutoff=0.0) if len(known) > MAX_LISTED else []
    return f"known: {some_of(list(dict.fromkeys([*nearest, *known])))}"


MAX_LISTED = 8
"""Names that a message lists. Arbitrary: as many as are read at a glance."""

MAX_NAME = 60
"""Characters of a name that a message shows. Arbitrary."""


def some_of(names: Sequence[str]) -> str:
    """List the first names, and say how many there are if there are more."""
    shown = ", ".join(map(shorten, names[:MAX_LISTED])) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > MAX_LISTED else shown


def shorten(text: str, limit: int = MAX_NAME) -> str:
    """Cut a text to what a message shows of it."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def surface_own_fault(error: BaseException) -> None:
    """Raise an error again if it is a fault of this code, so that no user's file is blamed for it.

    Libraries raise anything when they read a file that is something else, TypeError and AttributeError included. The
    same errors raised by a line of this project are faults of that line.

    Args:
        error: what was caught.
    """
    if not isinstance(error, PROGRAMMING_ERRORS):
        return
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames and str(frames[-1].f_globals.get("__name__")).partition(".")[0] in OWN_PACKAGES:
        raise error
