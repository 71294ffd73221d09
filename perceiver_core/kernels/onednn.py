"""Linear layers and matrix products with the fastest library that torch includes.

In single precision on a CPU, torch calls Intel's MKL, which does not use AVX-512 on AMD's CPUs. oneDNN, which torch
also includes, does; its results are as exact, and summed in another order. In bfloat16, torch calls oneDNN, which is
slow for a single row.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_core.unmodified import are_plain_tensors

MIN_MULTIPLICATIONS = 2**22
"""Multiplications from which on oneDNN is called.

In benchmarks/kernel_constants.py oneDNN is as fast as MKL or faster from twice this size on.
"""


@functools.cache
def onednn_is_faster() -> bool:
    """Return whether this machine's CPU multiplies faster with oneDNN than with MKL, and torch offers it."""
    cpu_info = Path("/proc/cpuinfo")
    vendor = cpu_info.read_text() if cpu_info.is_file() else platform.processor()
    faster = (
        "AuthenticAMD" in vendor
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
    )
    if faster:
        try:  # the operator is not part of torch's public interface, and may change
            _onednn_linear(torch.ones(2, 2), torch.ones(2, 2), None)
        except (AttributeError, RuntimeError):
            return False
    return faster


def prefers_onednn(multiplications: int, *tensors: Tensor) -> bool:
    """Return whether a product of these tensors is faster with oneDNN; False for all but plain tensors.

    Args:
        multiplications: multiplications of the product; with fewer than :data:`MIN_MULTIPLICATIONS`, MKL is faster.
        tensors: tensors to multiply.
    """
    return (
        not torch.compiler.is_compiling()  # first: a compiler cannot trace the read of the CPU's vendor
        and multiplications >= MIN_MULTIPLICATIONS
        and onednn_is_faster()
        and are_plain_tensors(*tensors)
        and all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in tensors)
        and not torch.is_autocast_enabled("cpu")
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute ``x weight^T + bias``, as :func:`torch.nn.functional.linear`.

    Args:
        x: (..., c).
        weight: (d, c).
        bias: (d). Default: no bias.

    Returns:
        (..., d).
    """
    if prefers_onednn(x.numel() * weight.shape[0], x, weight) and x.dim() > 1:
        return _OneDNNLinear.apply(x, weight, bias) if torch.is_grad_enabled() else _onednn_linear(x, weight, bias)
    if not _is_slow_by_onednn(x):
        return nn.functional.linear(x, weight, bias)
    torch._C._set_mkldnn_enabled(False)  # for all threads, of which others may be slower meanwhile
    try:
        return nn.functional.linear(x, weight, bias)
    finally:
        torch._C._set_mkldnn_enabled(True)


def matmul_transposed(x: Tensor, y: Tensor) -> Tensor:
    """Compute x y^T (h, n, m) for x (h, n, k) and y (h, m, k), without support for autograd."""
    if len(x) == 1 and prefers_onednn(MIN_MULTIPLICATIONS, x, y):
        return _onednn_linear(x[0], y[0], None)[None]
    return torch.matmul(x, y.transpose(-2, -1))


class Linear(nn.Linear):
    """:class:`torch.nn.Linear`, computed by :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def _is_slow_by_onednn(x: Tensor) -> bool:
    """Return whether torch would multiply a single row with oneDNN although its own kernel is faster.

    oneDNN copies the weight first. In bfloat16 on AMD's CPUs, torch's own kernel reads the weight once and takes 0.6
    times as long (benchmark ``causal-decode``).
    """
    return (
        x.dtype == torch.bfloat16
        and not torch.compiler.is_compiling()
        and x.numel() == x.shape[-1]
        and x.device.type == "cpu"
        and onednn_is_faster()
        and torch._C._get_mkldnn_enabled()
    )


def _onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # weights with gaps are multiplied a hundred times as slowly
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _onednn_linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        grad_x = linear(grad, weight.t()) if ctx.needs_input_grad[0] else None
        grad_weight = linear(rows.t(), x.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, rows.sum(0) if ctx.needs_input_grad[2] else None
