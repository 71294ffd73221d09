"""Override of the choice of kernels, for tests and benchmarks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple, get_args

import torch

Kernel = Literal["fused", "plain", "chunked"]
"""Attention kernels: PyTorch's fused kernel, the formula with all scores at once, or the formula for one chunk of
queries at a time."""

Absorption = Literal["none", "inputs", "queries"]
"""Projections to skip in single-head attention: none, those of the inputs (keys and values), or those of the
queries."""


class _Override(NamedTuple):
    kernel: Kernel | None = None
    absorption: Absorption | None = None


_override: ContextVar[_Override] = ContextVar("perceiver_core_kernel_override", default=_Override())  # noqa: B039


@contextlib.contextmanager
def force_kernel(kernel: Kernel | None = None, absorption: Absorption | None = None) -> Iterator[None]:
    """Force the kernel of all attention that runs inside the context.

    Applies to the current thread (or asyncio task) only. Attention that returns its weights always uses the plain
    kernel, and compiled or exported code ignores the override.

    Args:
        kernel: kernel to use. Default: that of the enclosing context, if any, otherwise the fastest.
        absorption: projections to absorb in single-head attention with unmodified projections. Default: those of the
            enclosing context, if any, otherwise those that save the most multiplications.

    Raises:
        ValueError: if the kernel or absorption is unknown.
    """
    _require_choice("kernel", kernel, Kernel)
    _require_choice("absorption", absorption, Absorption)
    outer = _override.get()
    token = _override.set(_Override(kernel or outer.kernel, absorption or outer.absorption))
    try:
        yield
    finally:
        _override.reset(token)


def forced_kernel() -> Kernel | None:
    """Return the forced kernel, or None if the fastest is to be used."""
    return None if torch.compiler.is_compiling() else _override.get().kernel


def forced_absorption() -> Absorption | None:
    """Return the forced absorption, or None if the cheapest is to be used."""
    return None if torch.compiler.is_compiling() else _override.get().absorption


def _require_choice(name: str, value: str | None, literal: Any) -> None:
    if value is not None and value not in get_args(literal):
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(get_args(literal))}")
