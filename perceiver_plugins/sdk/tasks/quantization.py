"""8-bit linear layers for prediction on a CPU: faster, a quarter of the weights' memory, not exact."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from perceiver_core import Linear
from perceiver_core.unmodified import is_unmodified_linear
from perceiver_registry import UserError

M = TypeVar("M", bound=nn.Module)


class Int8Linear(nn.Module):
    """Linear layer of 8-bit weights and inputs with 32-bit sums (dynamic quantization).

    Each output channel of the weights and each input position has a scale: the largest magnitude becomes 127.

    Args:
        linear: the layer whose weights are quantized.
    """

    integers: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        integers, scales = to_int8(linear.weight.detach().float())
        self.register_buffer("integers", integers)
        self.register_buffer("scales", scales)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    @property
    def weight(self) -> Tensor:
        """Dequantized weights (out, in)."""
        return self.integers * self.scales

    def forward(self, x: Tensor) -> Tensor:
        integers, scales = to_int8(x.reshape(-1, self.in_features).float())
        products = torch._int_mm(integers, self.integers.t()).float().mul_(scales).mul_(self.scales.t())
        if self.bias is not None:
            products += self.bias
        return products.view(*x.shape[:-1], self.out_features)


def to_int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of (r, c) to integers from -127 to 127; return these and the scales (r, 1) of the rows."""
    scales = (rows.abs().amax(dim=1, keepdim=True) / 127).clamp_(min=torch.finfo(rows.dtype).tiny)
    return (rows / scales).round_().to(torch.int8), scales


def quantize(model: M) -> M:
    """Replace a model's linear layers by :class:`Int8Linear`.

    Layers with another computation (subclasses, parametrizations, hooks, quantized weights) are not replaced.

    Args:
        model: a model in evaluation mode on a CPU. It is changed in place, and can then be neither trained nor saved.

    Returns:
        The same model.

    Raises:
        UserError: if the model is not on a CPU, or torch cannot multiply 8-bit integers.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise UserError(f"--quantize=int8: needs a CPU, got {device.type} (add --trainer.accelerator=cpu)")
    if not hasattr(torch, "_int_mm"):  # private, but torchao depends on it
        raise UserError(f"--quantize=int8: torch {torch.__version__} cannot multiply 8-bit integers (upgrade it)")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if is_unmodified_linear(child, Linear, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model
