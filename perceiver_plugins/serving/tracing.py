"""From a model to a program of ``torch.export`` whose sizes are open wherever the model lets them be."""

from __future__ import annotations

import contextlib
import logging
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from perceiver_core import PerceiverIO
from perceiver_plugins.serving.answers import ServedModel
from perceiver_plugins.serving.batches import dimension, entries, example, map_entries
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line, surface_own_fault

BATCH_SIZE = 2
"""Examples of the traced batch. One would be taken for a size that never changes."""

Place = tuple[str, int]
"""A dimension of an input: the input's name, and which of its dimensions."""


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: what it is called.
        type: of its numbers: "float32", "int64", ...
        shape: its sizes; an open one has a name, or is said in terms of such names.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class OpenSize:
    """A size that is open.

    Attributes:
        places: the dimensions of inputs that have it.
        traced: the size that it had in tracing.
        lowest: the least that it can be.
        highest: the most that it can be, or None.
    """

    places: tuple[Place, ...]
    traced: int
    lowest: int
    highest: int | None


@dataclass(frozen=True)
class Traced:
    """A model as a program.

    Attributes:
        program: the program, called with a batch; it returns a dict of tensors.
        inputs: the batch's entries, in the order of the program's inputs.
        outputs: what it returns, in the order of the program's outputs.
        sizes: the open sizes by name.
        symbols: the names of the open sizes by what the program calls them.
    """

    program: ExportedProgram
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sizes: dict[str, OpenSize]
    symbols: dict[str, str]

    def description(self) -> dict[str, Any]:
        """Inputs, outputs and open sizes as plain data."""
        return {
            "inputs": [asdict(port) for port in self.inputs],
            "outputs": [asdict(port) for port in self.outputs],
            "sizes": {name: [size.lowest, size.highest] for name, size in self.sizes.items()},
        }


def trace(model: PerceiverIO, fixed: Collection[Place] = (), batch_size: int = BATCH_SIZE) -> Traced:
    """Turns a model, in evaluation mode, into a program.

    Args:
        model: the model, on the CPU.
        fixed: dimensions of inputs that are to keep the size that they have in the input adapter's example. All others
            are left open, but where the model's own code fixes them.
        batch_size: number of examples in the batch that is traced.

    Raises:
        UserError: if the model cannot be exported.
    """
    batch = example(model, batch_size)

    def openness(name: str, value: Any) -> dict[int, Any] | None:
        if not isinstance(value, Tensor):
            return None
        return {place: Dim.STATIC if (name, place) in fixed else Dim.AUTO for place in range(value.dim())}

    try:
        with torch.no_grad(), quietly():
            program = torch.export.export(
                ServedModel(model).eval(), (batch,), dynamic_shapes=(map_entries(batch, openness),), strict=False
            )
    except Exception as error:  # an adapter may do anything
        surface_own_fault(error)
        raise UserError(f"the model cannot be exported: {in_one_line(error)}") from error

    inputs, outputs = _ends(program)
    firsts = {(name, 0) for name, value in inputs.items() if value.dim()}
    if batch_size > 1 and not any(_is_open(value.shape[0]) for value in inputs.values() if value.dim()):
        return trace(model, {*fixed, *firsts}, batch_size=1)

    symbols, sizes = _open_sizes(program, inputs)

    def port(name: str, value: Tensor) -> Port:
        shape = tuple(renamed(str(size), symbols) if _is_open(size) else int(str(size)) for size in value.shape)
        return Port(name, str(value.dtype).removeprefix("torch."), shape)

    return Traced(
        program,
        tuple(port(name, value) for name, value in inputs.items()),
        tuple(port(name, value) for name, value in outputs.items()),
        sizes,
        symbols,
    )


def renamed(size: str, symbols: Mapping[str, str]) -> str:
    """A size, written with a program's symbols, in the names of open sizes."""
    return re.sub(r"[A-Za-z_]\w*", lambda word: symbols.get(word[0], word[0]), size)


def _is_open(size: int | torch.SymInt) -> bool:
    """Whether a size is open. One that turned out to be fixed is a symbol that says "8"."""
    return isinstance(size, torch.SymInt) and not str(size).isdigit()


def _ends(program: ExportedProgram) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inputs and outputs of a program, by name, as tensors without numbers."""
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature, calls = program.graph_signature, program.call_spec
    (batch,), _ = calls.in_spec.unflatten(list(signature.user_inputs))
    answers = calls.out_spec.unflatten(list(signature.user_outputs))
    named = [{name: nodes.get(node) for name, node in entries(end)} for end in (batch, answers)]
    inputs, outputs = ({name: value for name, value in end.items() if isinstance(value, Tensor)} for end in named)
    return inputs, outputs


def _open_sizes(program: ExportedProgram, inputs: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, OpenSize]]:
    """The names of the open sizes by symbol, and what they are by name."""
    places: dict[str, list[Place]] = {}
    for name, value in inputs.items():
        for place, size in enumerate(value.shape):
            if _is_open(size):
                places.setdefault(str(size), []).append((name, place))
    ranges = {str(symbol): limits for symbol, limits in program.range_constraints.items()}
    (batch, *_), _ = program.example_inputs
    traced = dict(entries(batch))
    symbols: dict[str, str] = {}
    sizes: dict[str, OpenSize] = {}
    for symbol, where in places.items():
        (entry, place), *_ = where
        name = dimension(entry, place)
        if name in sizes:  # two images, say, each of a height of its own
            name = f"{entry}.{name}"
        symbols[symbol] = name
        limits = ranges.get(symbol)
        lowest, highest = (None, None) if limits is None else (_whole(limits.lower), _whole(limits.upper))
        # Two is what tracing takes for the least of every size; one is as good.
        lowest = lowest if lowest is not None and lowest > 2 else 1
        sizes[name] = OpenSize(tuple(where), traced[entry].shape[place], lowest, highest)
    return symbols, sizes


def _whole(limit: Any) -> int | None:
    """A limit of a range as a number, None if there is no limit."""
    return int(limit) if getattr(limit, "is_Integer", False) and abs(int(limit)) < 2**62 else None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps what exporters say of their own inner life from the person who exports."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
