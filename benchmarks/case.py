"""The words that cases are written in. Imports nothing heavy: the command and its worker processes start with it."""

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
"""What does not do the work but shows what the machine can do."""


@dataclass(frozen=True)
class Options:
    """What the person who runs the command asks for.

    Attributes:
        rounds: iterations of each contender that count, after one that does not.
        threads: threads of each process.
        device: "cpu" or "cuda".
        clock: "wall", or "cpu": seconds of CPU time of all threads, for a machine that is busy otherwise.
        quick: tiny sizes, to see that it works.
    """

    rounds: int = 5
    threads: int = 1
    device: str = "cpu"
    clock: Literal["wall", "cpu"] = "wall"
    quick: bool = False


class Job(NamedTuple):
    """Work that is ready to be done.

    Attributes:
        run: does the work once. What it returns, if anything, has to be the same for all contenders.
        facts: what is worth knowing about it, such as its number of multiplications.
    """

    run: Callable[[], Tensor | None]
    facts: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a comparison.

    Attributes:
        name: whose way it is.
        work: place (``module:function``) of a function that prepares the work: called in a fresh process with the
            :class:`Options` and ``arguments``, it returns a :class:`Job`.
        arguments: its keyword arguments, plain data.
        exact: whether its result has to equal the first contender's.
        samples: how many samples an iteration processes. 0: samples are not what counts.
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
    """Contenders that do the same work. The first one is what the others are compared with.

    Attributes:
        contenders: they.
        name: what tells it from the other comparisons of its case.
        size: number of inputs or outputs, where a case is about growth.
        tolerance: how much results may differ, relative to the largest number of the first contender's.
        max_rounds: how many rounds are enough, where the work takes long.
        in_turn: whether all are there at once and take turns. If not, each ends before the next one starts: where all
            together would not fit into memory.
    """

    contenders: tuple[Contender, ...]
    name: str = ""
    size: int | None = None
    tolerance: float = 1e-5
    max_rounds: int = 1000
    in_turn: bool = True


@dataclass(frozen=True)
class Case:
    """Something to measure.

    A case is either a list of comparisons, or of rows that a function measures by itself in fresh processes.

    Attributes:
        name: what the command calls it.
        title: heading of its section.
        text: what is measured, in a few sentences.
        comparisons: makes the comparisons.
        rows: makes contenders whose ``work`` returns rows of a table (plain data) instead of a :class:`Job`.
        device: the only device that it is meant for. None: any.
        memory: whether the memory of the processes is of interest.
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
    """The options as plain data."""
    return asdict(options)
