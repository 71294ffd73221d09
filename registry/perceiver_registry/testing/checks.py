"""A contract: sentences, each with a function that checks it."""

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


class NotJudged(SkipTest):
    """A promise that cannot be judged, as another one that it needs is broken."""


def expect(condition: object, wrong: str) -> None:
    """Raises AssertionError that says what is ``wrong``, unless the condition holds. Unlike ``assert``, always."""
    if not condition:
        raise AssertionError(wrong)


def expect_none(problems: Iterable[str]) -> None:
    """Raises AssertionError that lists the problems, if there are any."""
    listed = list(problems)
    expect(not listed, "; ".join(listed))


@dataclass(frozen=True)
class Promise:
    """A sentence of a contract.

    Attributes:
        check: raises if it is broken, and SkipTest if it does not apply. Its docstring is the sentence.
        kind: the kind of subject that it holds for; None: all.
        needs: names of the promises without which it cannot be judged.
    """

    check: Callable[[Any], None]
    kind: str | None
    needs: tuple[str, ...]


class Check:
    """A promise of the contract on trial: call it, and it raises AssertionError if the promise is broken.

    Args:
        promise: the promise.
        subject: whoever makes it.

    Attributes:
        name: the promise's name.
        needs: the checks without which this one cannot be judged; where one fails, this one is skipped.
    """

    def __init__(self, promise: Promise, subject: Any):
        self.promise = promise
        self.subject = subject
        self.needs: list[Check] = []
        self.name = promise.check.__name__
        self.__name__ = f"{subject.id}-{self.name}"  # what pytest calls the test

    @property
    def sentence(self) -> str:
        """What the contract says."""
        return " ".join((inspect.getdoc(self.promise.check) or "").partition("\n\n")[0].split())

    @functools.cached_property
    def outcome(self) -> Exception | None:
        """None if the promise is kept, AssertionError if it is broken, SkipTest if it cannot be judged."""
        for need in self.needs:
            if need.outcome is not None:
                return NotJudged(f"cannot be judged while {need.name} fails")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch's compiler and exporter, mostly
                self.promise.check(self.subject)
        except SkipTest as skipped:
            return skipped
        except Exception as error:
            wrong = str(error) if isinstance(error, AssertionError) and str(error) else _described(error)
            failure = AssertionError(f"{self.subject}: {self.name}: {wrong}. The contract: {self.sentence}")
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
    """Promises in the order in which they are checked."""

    promises: dict[str, Promise] = field(default_factory=dict)

    def promise(
        self, *, kind: str | None = None, needs: Collection[str] = ()
    ) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
        """A decorator that makes a function the check of a promise; see :class:`Promise`."""

        def decorate(check: Callable[[Any], None]) -> Callable[[Any], None]:
            self.promises[check.__name__] = Promise(check, kind, tuple(needs))
            return check

        return decorate

    def __or__(self, other: Contract) -> Contract:
        return Contract(self.promises | other.promises)

    def checks(self, subject: Any, kind: str | None = None) -> list[Check]:
        """The checks of one subject.

        Args:
            subject: what the functions are called with; its ``id`` names it.
            kind: which of the promises that do not hold for all are meant.
        """
        checks = {
            name: Check(promise, subject) for name, promise in self.promises.items() if promise.kind in (None, kind)
        }
        for check in checks.values():
            needed = [name for name in check.promise.needs if self.promises[name].kind in (None, kind)]
            check.needs = [checks[name] for name in needed]
        return list(checks.values())


def report(checks: Iterable[Check]) -> None:
    """Runs checks.

    Raises:
        AssertionError: if any fails; a line for each.
    """
    checks = list(checks)
    failures = [check.outcome for check in checks if isinstance(check.outcome, AssertionError)]
    if failures:
        not_judged = sum(isinstance(check.outcome, NotJudged) for check in checks)
        head = f"{len(failures)} of {len(checks)} checks failed"
        head += f", {not_judged} more cannot be judged until then" if not_judged else ""
        raise AssertionError("\n- ".join([f"{head}:", *map(str, failures)])) from failures[0].__cause__


def _described(error: Exception) -> str:
    """An error in a line, and where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{in_one_line(error)} ({last.filename}:{last.lineno})"
