"""Errors that are the user's to mend. The command prints them as one line and exits with code 2."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable

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
    printable = "".join(char if char.isprintable() else "?" for char in message)
    return f"{type(error).__name__}: {printable[:300]}" if printable else type(error).__name__


def near(name: str, known: Iterable[str], listed: Iterable[str] | str | None = None) -> str:
    """What to say after an unknown ``name``: the nearest of the ``known`` names or, if none is near, a list of names.

    Args:
        name: the unknown name.
        known: the known names.
        listed: what is listed if none is near, or a text that says where they are. None: all known names.
    """
    known = sorted(known)
    matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if matches:
        return f"did you mean {' or '.join(map(repr, matches))}?"
    if isinstance(listed, str):
        return listed
    return f"known: {', '.join(known if listed is None else sorted(listed)) or 'none'}"


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
