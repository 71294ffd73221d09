"""User errors, which the command prints as one line with exit code 2, and helpers for messages."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Sequence

from perceiver_registry.escaping import escape_line

OWN_PACKAGES = ("perceiver_core", "perceiver_registry", "perceiver_plugins", "perceiver_cli", "perceiver_zoo")

PROGRAMMING_ERRORS = (TypeError, AttributeError, NameError)


class UserError(Exception):
    """Invalid name, file, value or combination.

    The message is one line: the flag, file or plugin, what is wrong, and what to do.
    """


class UnknownNameError(UserError, LookupError):
    """The name is not registered."""


class AmbiguousNameError(UserError, LookupError):
    """Several distributions register the name."""


class PluginError(UserError):
    """A plugin is missing, cannot be imported, or registers invalid specs."""


class RunError(Exception):
    """Failure of a run, with a message of one line (exit code 1)."""


def in_one_line(error: BaseException) -> str:
    """Return an error's type and message in one line of printable characters."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # __str__ of a third-party error may fail
        message = ""
    printable = escape_line(message[:300])
    return f"{type(error).__name__}: {printable}" if printable else type(error).__name__


def near(name: str, known: Iterable[str], listed: Iterable[str] | str | None = None) -> str:
    """Suggest similar names for an unknown name, or list some known names if none is similar.

    Args:
        name: the unknown name.
        known: the known names.
        listed: names to list if none is similar, or a text to return instead. None: the known names.
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
"""Maximum number of names in a message. Arbitrary."""

MAX_NAME = 60
"""Maximum length of a name in a message. Arbitrary."""


def some_of(names: Sequence[str]) -> str:
    """Join the first names, with the total number if there are more."""
    shown = ", ".join(map(shorten, names[:MAX_LISTED])) or "none"
    return f"{shown}, ... ({len(names)} in all)" if len(names) > MAX_LISTED else shown


def shorten(text: str, limit: int = MAX_NAME) -> str:
    """Truncate a text for a message."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def surface_own_fault(error: BaseException) -> None:
    """Re-raise a programming error of this project, so that it is not reported as a damaged file.

    Libraries raise various errors for invalid files, TypeError and AttributeError included. The same errors raised by
    this project's code are bugs.

    Args:
        error: the caught error.
    """
    if not isinstance(error, PROGRAMMING_ERRORS):
        return
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames and str(frames[-1].f_globals.get("__name__")).partition(".")[0] in OWN_PACKAGES:
        raise error
