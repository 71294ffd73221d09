"""Checks with prerequisites, and contracts as collections of checks."""

from __future__ import annotations

import functools
import inspect
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from unittest import SkipTest

from perceiver_registry.errors import in_one_line


class Skipped(SkipTest):
    """Outcome of a check whose prerequisite failed or was skipped."""


def expect(condition: object, problem: str) -> None:
    """Raise AssertionError with ``problem`` unless the condition is true, also under ``python -O``."""
    if not condition:
        raise AssertionError(problem)


def expect_none(problems: Iterable[str]) -> None:
    """Raise AssertionError that lists the problems, if there are any."""
    listed = list(problems)
    expect(not listed, "; ".join(listed))


@dataclass(frozen=True)
class CheckDefinition:
    """Definition of a check, independent of a subject.

    Attributes:
        function: raises AssertionError if a subject fails, and SkipTest if the check does not apply. Its docstring
            describes what is required.
        kind: kind of subject that the check applies to. None: all.
        needs: names of the checks that must pass first.
    """

    function: Callable[[Any], None]
    kind: str | None
    needs: tuple[str, ...]


class Check:
    """Check of one subject. Calling it raises AssertionError if the subject fails, SkipTest if it does not apply.

    Args:
        definition: definition of the check.
        subject: argument of the check's function.

    Attributes:
        name: name of the check.
        needs: checks that must pass first; otherwise this one is skipped.
    """

    def __init__(self, definition: CheckDefinition, subject: Any):
        self.definition = definition
        self.subject = subject
        self.needs: list[Check] = []
        self.name = definition.function.__name__
        self.__name__ = f"{subject.id}-{self.name}"  # test id in pytest

    @property
    def description(self) -> str:
        """Requirement of the contract: the first paragraph of the function's docstring."""
        return " ".join((inspect.getdoc(self.definition.function) or "").partition("\n\n")[0].split())

    @property
    def sentence(self) -> str:
        """Deprecated since interface 2.0: use ``description``."""
        message = "Check.sentence is deprecated since interface 2.0: use description"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return self.description

    @functools.cached_property
    def outcome(self) -> Exception | None:
        """None if the check passes, AssertionError if it fails, SkipTest if it is skipped."""
        for need in self.needs:
            if need.outcome is not None:
                return Skipped(f"needs {need.name}, which did not pass")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # mostly from torch.compile and torch.export
                self.definition.function(self.subject)
        except SkipTest as skipped:
            return skipped
        except Exception as error:
            problem = str(error) if isinstance(error, AssertionError) and str(error) else _describe(error)
            failure = AssertionError(f"{self.subject}: {self.name}: {problem}. The contract: {self.description}")
            failure.__cause__ = error
            return failure
        return None

    def __call__(self) -> None:
        if self.outcome is not None:
            raise self.outcome

    def __repr__(self) -> str:
        return f"<Check {self.__name__}>"


@dataclass(frozen=True)
class Contract:
    """Ordered collection of check definitions by name."""

    definitions: dict[str, CheckDefinition] = field(default_factory=dict)

    def check(
        self, *, kind: str | None = None, needs: Collection[str] = ()
    ) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        """Return a decorator that adds a function to the contract; for arguments see :class:`CheckDefinition`."""

        def add(function: Callable[[Any], None]) -> Callable[[Any], None]:
            self.definitions[function.__name__] = CheckDefinition(function, kind, tuple(needs))
            return function

        return add

    def __or__(self, other: Contract) -> Contract:
        return Contract(self.definitions | other.definitions)

    def checks(self, subject: Any, kind: str | None = None) -> list[Check]:
        """Create the checks of one subject.

        Args:
            subject: argument of the checks' functions; its ``id`` is part of their test ids.
            kind: kind of the subject. Checks for other kinds are left out.
        """
        checks = {
            name: Check(definition, subject)
            for name, definition in self.definitions.items()
            if definition.kind in (None, kind)
        }
        for check in checks.values():
            check.needs = [
                checks[name] for name in check.definition.needs if self.definitions[name].kind in (None, kind)
            ]
        return list(checks.values())


def report(checks: Iterable[Check]) -> None:
    """Run checks.

    Raises:
        AssertionError: if any fails; the message has a line for each failure.
    """
    checks = list(checks)
    failures = [check.outcome for check in checks if isinstance(check.outcome, AssertionError)]
    if failures:
        num_skipped = sum(isinstance(check.outcome, Skipped) for check in checks)
        head = f"{len(failures)} of {len(checks)} checks failed"
        head += f", {num_skipped} that need them were skipped" if num_skipped else ""
        raise AssertionError("\n- ".join([f"{head}:", *map(str, failures)])) from failures[0].__cause__


def _describe(error: Exception) -> str:
    """Describe an error in one line, with file and line number."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{in_one_line(error)} ({last.filename}:{last.lineno})"
