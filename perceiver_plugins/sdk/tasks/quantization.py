"""8-bit linear layers for prediction on a CPU: faster, a quarter of the weights' memory, and no longer exact."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_core import Linear, PerceiverIO
from perceiver_core.unmodified import is_unmodified_linear
from perceiver_registry import UserError


class Int8Linear(nn.Module):
    """A linear layer that multiplies 8-bit integers: rounded weights by rounded inputs, with 32-bit sums.

    Each output channel of the weights has a scale, and so has each place of the input, taken as it comes ("dynamic
    quantization"): the largest magnitude becomes 127.

    Args:
        linear: the layer whose weights are taken.
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
    """Rounds each row of (r, c) to integers from -127 to 127; returns these and the scales (r, 1) of the rows."""
    scales = (rows.abs().amax(dim=1, keepdim=True) / 127).clamp_(min=torch.finfo(rows.dtype).tiny)
    return (rows / scales).round_().to(torch.int8), scales


def quantize(model: PerceiverIO) -> PerceiverIO:
    """Replace a model's unmodified linear layers by those with 8-bit weights.

    Layers that compute something else (subclasses, parametrizations, hooks, quantized weights) stay as they are.

    Args:
        model: a model in evaluation mode on a CPU; it is changed in place, and can be neither trained nor saved then.

    Returns:
        The same model.

    Raises:
        UserError: if the model is not on a CPU, or this torch has no product of 8-bit integers.
    """
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise UserError(f"--quantize=int8 is for CPUs, not for {device.type}: add --trainer.accelerator=cpu")
    if not hasattr(torch, "_int_mm"):  # torchao builds on it, but it is not public
        raise UserError(f"--quantize=int8: torch {torch.__version__} has no product of 8-bit integers")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if is_unmodified_linear(child, Linear, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model
