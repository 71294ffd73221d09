"""The floor: the matrix products of some work, recorded as it is done, then done alone.

Whatever a library does besides (norms, activations, softmax, optimizers, memory) comes on top of them.
"""

from __future__ import annotations

import functools
import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.case import Job, Options
from benchmarks.turns import resolve

MAX_PART = 2**20
"""Numbers of a part of a product: few enough for a CPU's cache."""


class Product(NamedTuple):
    """``batch`` times a matrix (rows, inner) times one (inner, columns)."""

    batch: int
    rows: int
    inner: int
    columns: int

    @property
    def flop(self) -> int:
        return 2 * self.batch * self.rows * self.inner * self.columns


def _of_matrices(x: Tensor, y: Tensor, *_: Any) -> Iterator[Product]:
    yield Product(1, x.shape[0], x.shape[1], y.shape[1])


def _of_batches(x: Tensor, y: Tensor, *_: Any) -> Iterator[Product]:
    yield Product(x.shape[0], x.shape[1], x.shape[2], y.shape[2])


def _of_linear(x: Tensor, weight: Tensor, *_: Any) -> Iterator[Product]:
    yield Product(1, x.shape[:-1].numel(), x.shape[-1], weight.shape[0])


def _of_attention(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Iterator[Product]:
    batch, n, d, m, e = q.shape[:-2].numel(), q.shape[-2], q.shape[-1], k.shape[-2], v.shape[-1]
    yield Product(batch, n, d, m)
    yield Product(batch, n, m, e)


def _of_attention_backward(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Iterator[Product]:
    batch, n, d, m, e = q.shape[:-2].numel(), q.shape[-2], q.shape[-1], k.shape[-2], v.shape[-1]
    yield Product(batch, n, d, m)  # the scores again
    yield Product(batch, n, e, m)  # gradients of the weights,
    yield Product(batch, m, n, e)  # the values,
    yield Product(batch, n, m, d)  # the queries
    yield Product(batch, m, n, d)  # and the keys


ATTENTION = "aten::_scaled_dot_product_"
"""Prefix of the names of torch's fused attention kernels; the rest of a name differs between its versions."""

OPERATORS: dict[str, Callable[..., Iterator[Product]]] = {
    "aten::mm": _of_matrices,
    "aten::addmm": lambda bias, x, y, *_: _of_matrices(x, y),
    "aten::bmm": _of_batches,
    "aten::baddbmm": lambda bias, x, y, *_: _of_batches(x, y),
    "aten::linear": _of_linear,
    "mkldnn::_linear_pointwise": _of_linear,
}


def operator(name: str) -> Callable[..., Iterator[Product]] | None:
    """The products of an operator, by its name; None if it is not made of products, or of other operators that are."""
    if name.startswith(ATTENTION) and "_math" not in name:  # the math kernel is made of other operators
        return _of_attention_backward if name.endswith("_backward") else _of_attention
    return OPERATORS.get(name)


class ProductRecorder(TorchDispatchMode):
    """Notes the matrix products that are computed in this context, forwards and backwards, in ``products``."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Counter[Product] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        products_of = operator(func._schema.name)
        if products_of is not None:
            self.products.update(products_of(*args))
            return func(*args, **kwargs)
        with self:  # such as matmul, where no gradients are wanted
            parts = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if parts is NotImplemented else parts


def record(run: Callable[[], Any]) -> Counter[Product]:
    """Record how often each product is computed in a run."""
    with ProductRecorder() as recorder:
        run()
    return recorder.products


def alone(options: Options, work: str, arguments: Mapping[str, Any]) -> Job:
    """The matrix products of a contender's work, without the rest of it.

    Each kind of product is computed by the fastest of the ways that torch offers for it. Operands stay the same where
    a product is repeated, so that weights need not be fetched from memory each time: it is a floor.
    """
    products = record(resolve(work)(options, **arguments).run)
    gc.collect()
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    work_of = {product: fastest(product, options.device, dtype) for product in products}

    def run() -> None:
        for product, count in products.items():
            for _ in range(count):
                work_of[product]()

    return Job(run, {"gflop": sum(product.flop * count for product, count in products.items()) / 1e9})


def fastest(product: Product, device: str, dtype: torch.dtype) -> Callable[[], Any]:
    """The fastest way to compute a product."""
    ways = list(ways_of(product, device, dtype))
    if len(ways) == 1:
        return ways[0]

    def seconds(way: Callable[[], Any]) -> float:
        way()
        start = time.perf_counter()
        way()
        return time.perf_counter() - start

    return min(ways, key=seconds)


def ways_of(product: Product, device: str, dtype: torch.dtype) -> Iterator[Callable[[], Any]]:
    """Ways to compute a product: all at once; and on a CPU in parts, by either of the libraries that torch has."""
    batch, rows, inner, columns = product
    x = torch.randn(batch, rows, inner, device=device, dtype=dtype)
    y = torch.randn(batch, columns, inner, device=device, dtype=dtype)
    step = max(1, min(rows, MAX_PART // columns))
    if device != "cpu" or batch * rows * columns <= MAX_PART or (batch == 1 and step == rows):
        yield functools.partial(torch.bmm, x, y.transpose(1, 2), out=x.new_empty(batch, rows, columns))
    if device != "cpu":
        return
    pairs = [(part, other) for each, other in zip(x, y, strict=True) for part in each.split(step)]
    buffer = x.new_empty(step, columns)

    def in_parts() -> None:
        for part, other in pairs:
            torch.mm(part, other.t(), out=buffer[: len(part)])

    yield in_parts
    # The operator is not part of torch's public interface.
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return

    def by_onednn(pairs: list[tuple[Tensor, Tensor]]) -> None:
        for part, other in pairs:
            torch.ops.mkldnn._linear_pointwise(part, other, None, "none", [], "")

    yield functools.partial(by_onednn, pairs)
    if len(pairs) > batch:
        yield functools.partial(by_onednn, list(zip(x, y, strict=True)))
