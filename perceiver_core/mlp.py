"""Multilayer perceptrons of attention layers, and their activation functions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor, nn

from perceiver_core.kernels.onednn import Linear

Activation = Literal["gelu", "gelu_tanh", "relu", "squared_relu", "silu", "geglu", "swiglu"]
"""Names of activation functions."""


class SquaredReLU(nn.Module):
    """Squared rectifier, max(x, 0)^2 (Primer, arXiv 2109.08668)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


class Gated(nn.Module):
    """Gated linear unit: the first half of the channels times an activation of the second (arXiv 2002.05202).

    Args:
        activation: activation function of the gate.
    """

    def __init__(self, activation: nn.Module):
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., 2 c) to (..., c)."""
        values, gates = x.chunk(2, dim=-1)
        return values * self.activation(gates)


ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_tanh": partial(nn.GELU, approximate="tanh"),
    "relu": nn.ReLU,
    "squared_relu": SquaredReLU,
    "silu": nn.SiLU,
    "geglu": lambda: Gated(nn.GELU()),
    "swiglu": lambda: Gated(nn.SiLU()),
}
"""Constructors of activation functions, by the names of :data:`Activation`."""

GATED = ("geglu", "swiglu")
"""Gated activation functions, which halve the channels."""


class MLP(nn.Sequential):
    """Two linear layers with an activation function between them.

    Args:
        num_channels: input and output channels.
        widening_factor: hidden channels per input channel, counted after the activation function.
        bias: biases of both layers.
        activation: activation function.
    """

    hidden: Linear
    output: Linear

    def __init__(self, num_channels: int, widening_factor: int, bias: bool = True, activation: Activation = "gelu"):
        num_hidden_channels = widening_factor * num_channels
        super().__init__(
            OrderedDict(
                hidden=Linear(num_channels, num_hidden_channels * (2 if activation in GATED else 1), bias=bias),
                activation=ACTIVATIONS[activation](),
                output=Linear(num_hidden_channels, num_channels, bias=bias),
            )
        )
