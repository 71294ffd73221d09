"""Tracing of models with ``torch.export``, with as many dynamic dimensions as the model allows."""

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

from perceiver_core import Batch, Model
from perceiver_plugins.sdk.tasks.batches import entries
from perceiver_plugins.serving.batches import dimension_name, example_batch, map_entries
from perceiver_plugins.serving.served_model import ServedModel
from perceiver_registry import UserError
from perceiver_registry.errors import in_one_line, surface_own_fault

BATCH_SIZE = 2
"""Size of the traced batch; ``torch.export`` would specialise on a size of one."""

InputDim = tuple[str, int]
"""Dimension of an input: name of the input, and index of the dimension."""


@dataclass(frozen=True)
class Port:
    """Input or output tensor of a program.

    Attributes:
        name: name of the tensor.
        type: type of its elements: "float32", "int64", ...
        shape: its sizes; a dynamic size is a name or an expression of names.
    """

    name: str
    type: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class DynamicSize:
    """Dynamic size.

    Attributes:
        dims: dimensions of the inputs that have this size.
        traced: size in tracing.
        lowest: minimum.
        highest: maximum; None: no limit.
    """

    dims: tuple[InputDim, ...]
    traced: int
    lowest: int
    highest: int | None


@dataclass(frozen=True)
class Traced:
    """Traced model.

    Attributes:
        program: program that maps a batch to a dict of tensors.
        inputs: entries of the batch, in the order of the program's inputs.
        outputs: returned tensors, in the order of the program's outputs.
        sizes: dynamic sizes by name.
        symbols: name of the dynamic size of each symbol in the program.
    """

    program: ExportedProgram
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    sizes: dict[str, DynamicSize]
    symbols: dict[str, str]

    def description(self) -> dict[str, Any]:
        """Return inputs, outputs and dynamic sizes as plain data."""
        return {
            "inputs": [asdict(port) for port in self.inputs],
            "outputs": [asdict(port) for port in self.outputs],
            "sizes": {name: [size.lowest, size.highest] for name, size in self.sizes.items()},
        }


def trace(model: Model, fixed: Collection[InputDim] = (), batch_size: int = BATCH_SIZE) -> Traced:
    """Trace a model in evaluation mode.

    Args:
        model: the model, on the CPU.
        fixed: dimensions of inputs with a static size, that of the input adapter's example batch. All others are
            dynamic, unless the model's code specialises on their size.
        batch_size: size of the traced batch.

    Raises:
        UserError: if the model cannot be exported.
    """
    batch = example_batch(model, batch_size)

    def dynamic_dims(name: str, value: Any) -> dict[int, Any] | None:
        if not isinstance(value, Tensor):
            return None
        return {dim: Dim.STATIC if (name, dim) in fixed else Dim.AUTO for dim in range(value.dim())}

    try:
        with torch.no_grad(), suppress_logging():
            program = torch.export.export(
                ServedModel(model).eval(), (batch,), dynamic_shapes=(map_entries(batch, dynamic_dims),), strict=False
            )
    except Exception as error:  # adapters can raise any error
        surface_own_fault(error)
        raise UserError(f"the model cannot be exported: {in_one_line(error)}") from error

    inputs, outputs = _inputs_and_outputs(program)
    batch_dims = {(name, 0) for name, value in inputs.items() if value.dim()}
    if batch_size > 1 and not any(_is_dynamic(value.shape[0]) for value in inputs.values() if value.dim()):
        return trace(model, {*fixed, *batch_dims}, batch_size=1)

    symbols, sizes = _dynamic_sizes(program, inputs)

    def port(name: str, value: Tensor) -> Port:
        sizes = (rename_symbols(str(size), symbols) if _is_dynamic(size) else int(str(size)) for size in value.shape)
        return Port(name, str(value.dtype).removeprefix("torch."), tuple(sizes))

    return Traced(
        program,
        tuple(port(name, value) for name, value in inputs.items()),
        tuple(port(name, value) for name, value in outputs.items()),
        sizes,
        symbols,
    )


def rename_symbols(size: str, symbols: Mapping[str, str]) -> str:
    """Replace a program's symbols in the expression of a size by the names of dynamic sizes."""
    return re.sub(r"[A-Za-z_]\w*", lambda word: symbols.get(word[0], word[0]), size)


def _is_dynamic(size: int | torch.SymInt) -> bool:
    """Return whether a size is dynamic. A specialised size can be a symbol with a name like "8"."""
    return isinstance(size, torch.SymInt) and not str(size).isdigit()


def _inputs_and_outputs(program: ExportedProgram) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the inputs and outputs of a program by name, as fake tensors."""
    nodes = {node.name: node.meta.get("val") for node in program.graph.nodes}
    signature, calls = program.graph_signature, program.call_spec
    (batch,), _ = calls.in_spec.unflatten(list(signature.user_inputs))
    outputs = calls.out_spec.unflatten(list(signature.user_outputs))
    return _named_tensors(batch, nodes), _named_tensors(outputs, nodes)


def _named_tensors(batch: Batch, nodes: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a batch of node names, by entry."""
    values = {name: nodes.get(node) for name, node in entries(batch)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _dynamic_sizes(
    program: ExportedProgram, inputs: Mapping[str, Tensor]
) -> tuple[dict[str, str], dict[str, DynamicSize]]:
    """Return the names of the dynamic sizes by symbol, and the dynamic sizes by name."""
    dims: dict[str, list[InputDim]] = {}
    for name, value in inputs.items():
        for dim, size in enumerate(value.shape):
            if _is_dynamic(size):
                dims.setdefault(str(size), []).append((name, dim))
    ranges = {str(symbol): limits for symbol, limits in program.range_constraints.items()}
    (batch, *_), _ = program.example_inputs
    traced = dict(entries(batch))
    symbols: dict[str, str] = {}
    sizes: dict[str, DynamicSize] = {}
    for symbol, symbol_dims in dims.items():
        (entry, dim), *_ = symbol_dims
        name = dimension_name(entry, dim)
        if name in sizes:  # such as the heights of two images
            name = f"{entry}.{name}"
        symbols[symbol] = name
        limits = ranges.get(symbol)
        lowest, highest = (None, None) if limits is None else (_as_int(limits.lower), _as_int(limits.upper))
        # Tracing assumes that every dynamic size is at least 2, but 1 works as well.
        lowest = lowest if lowest is not None and lowest > 2 else 1
        sizes[name] = DynamicSize(tuple(symbol_dims), traced[entry].shape[dim], lowest, highest)
    return symbols, sizes


def _as_int(limit: Any) -> int | None:
    """Convert a limit of a range; None if it is infinite."""
    return int(limit) if getattr(limit, "is_Integer", False) and abs(int(limit)) < 2**62 else None


@contextlib.contextmanager
def suppress_logging() -> Iterator[None]:
    """Context manager that suppresses the exporters' warnings and log messages."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
