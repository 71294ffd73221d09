"""Records that describe cases. Imports are light, since the command and its workers import this module first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

OURS, HUGGING_FACE, KRASSERM = "perceiver-zoo", "Hugging Face", "krasserm"
PEERS = (HUGGING_FACE, KRASSERM)
FLOOR = "matrix products alone"
MATRIX_RATE = "products of large matrices"
"""Contenders that measure the machine's limits instead of the work."""


@dataclass(frozen=True)
class Options:
    """Options of the command.

    Attributes:
        rounds: measured iterations of each contender, after one warm-up.
        threads: threads of each process.
        device: "cpu" or "cuda".
        clock: "wall", or "cpu": CPU seconds of all threads, for a busy machine.
        quick: use tiny sizes, for a smoke test.
    """

    rounds: int = 5
    threads: int = 1
    device: str = "cpu"
    clock: Literal["wall", "cpu"] = "wall"
    quick: bool = False


class Job(NamedTuple):
    """Prepared work.

    Attributes:
        run: does the work once. Its result, if any, must be the same for all contenders.
        facts: properties to report, such as the number of multiplications.
    """

    run: Callable[[], Tensor | None]
    facts: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a comparison.

    Attributes:
        name: name of the implementation.
        work: import path (``module:function``) of a function that prepares the work: called in a fresh process with the
            :class:`Options` and ``arguments``, it returns a :class:`Job`.
        arguments: its keyword arguments, plain data.
        exact: require its result to equal the first contender's.
        samples: samples per iteration. 0: not counted.
        environment: environment variables of its process.
    """

    name: str
    work: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    exact: bool = True
    samples: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Contenders that do the same work; the first is the reference.

    Attributes:
        contenders: the contenders.
        name: name within its case.
        size: number of inputs or outputs, where a case is about growth.
        tolerance: largest difference of results, relative to the reference's largest number.
        max_rounds: limit of rounds, for slow work.
        in_turn: run all at once, taking turns. Otherwise each ends before the next starts, for contenders that do not
            fit into memory together.
    """

    contenders: tuple[Contender, ...]
    name: str = ""
    size: int | None = None
    tolerance: float = 1e-5
    max_rounds: int = 1000
    in_turn: bool = True


@dataclass(frozen=True)
class Case:
    """One measurement of the report.

    A case is either a list of comparisons, or of rows that a function measures by itself in fresh processes.

    Attributes:
        name: name on the command line.
        title: heading of its section.
        text: what is measured, in a few sentences.
        comparisons: makes the comparisons.
        rows: makes contenders whose ``work`` returns rows of a table (plain data) instead of a :class:`Job`.
        device: the only device it runs on. None: any.
        memory: report the memory of the processes.
        picture: "bars", "growth" (over the comparisons' sizes) or none.
    """

    name: str
    title: str
    text: str
    comparisons: Callable[[Options], list[Comparison]] | None = None
    rows: Callable[[Options], list[Contender]] | None = None
    device: str | None = None
    memory: bool = True
    picture: Literal["bars", "growth"] | None = "bars"


def plain(options: Options) -> dict[str, Any]:
    """Convert options to plain data."""
    return asdict(options)
