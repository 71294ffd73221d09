"""Muon for the matrices of layers, and AdamW for all other parameters, in one optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

MATRICES = "matrices"
"""Key of a parameter group: true if its parameters are matrices of layers, which Muon updates. Absent: false."""

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the Newton-Schulz iteration (https://kellerjordan.github.io/posts/muon)."""

NUM_ITERATIONS = 5
"""Steps of the Newton-Schulz iteration (https://kellerjordan.github.io/posts/muon)."""

RMS = 0.2
"""Root mean square of AdamW's typical update, which Muon's is scaled to (https://arxiv.org/abs/2502.16982)."""


class Muon(AdamW):
    """Muon (https://kellerjordan.github.io/posts/muon) for the matrices of layers, and AdamW for other parameters.

    Muon's update is the momentum of the gradients (Nesterov's), with all singular values close to 1. It is scaled by
    0.2 sqrt(max(rows, columns)), so that matrices use the learning rate and weight decay of AdamW
    (https://arxiv.org/abs/2502.16982). Matrices are the parameters of groups with ``"matrices"``: true, which tasks
    set for the weights of all linear layers but those of adapters.

    ``torch.optim.Muon`` updates matrices only, and computes in bfloat16, which is slow on CPUs without it.

    Args:
        params: parameters, or groups of them.
        lr: learning rate.
        betas: averaging coefficients of AdamW.
        eps: term of AdamW's denominator.
        weight_decay: decoupled weight decay of all parameters, for each unit of the learning rate.
        momentum: averaging coefficient of Muon.
        fused: use AdamW's fused kernel. Default: torch's choice.

    Raises:
        ValueError: if an argument is out of range, or a parameter of a group of matrices does not have two dimensions.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        momentum: float = 0.95,
        fused: bool | None = None,
    ):
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"momentum={momentum}: must be at least 0 and less than 1")
        super().__init__(params, lr, betas, eps, weight_decay, fused=fused)
        for group in self.param_groups:
            group.setdefault(MATRICES, False)
            group.setdefault("momentum", momentum)
            if group[MATRICES] and any(parameter.ndim != 2 for parameter in group["params"]):
                raise ValueError("a parameter of a group of matrices does not have two dimensions")
        # A fused step divides gradients by fp16's scale itself, which would leave out those of matrices.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters.

        Args:
            closure: computes gradients and returns the loss.

        Returns:
            The result of ``closure``, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group[MATRICES]:
                self._update_matrices(group)
        self.param_groups = [group for group in groups if not group[MATRICES]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def _update_matrices(self, group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        matrices = [parameter for parameter in group["params"] if parameter.grad is not None]
        for matrix, update in zip(matrices, self._updates(matrices, momentum), strict=True):
            matrix.mul_(1 - lr * group["weight_decay"])
            matrix.sub_(update * (lr * RMS * math.sqrt(max(matrix.shape))))

    def _updates(self, matrices: list[nn.Parameter], momentum: float) -> Iterator[Tensor]:
        """Yield the orthogonalised momentum of each matrix. Matrices of equal shape are computed together."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, matrix in enumerate(matrices):
            by_shape.setdefault(tuple(matrix.shape), []).append(index)
        updates: dict[int, Tensor] = {}
        for indices in by_shape.values():
            momenta = [self._momentum(matrices[index], momentum) for index in indices]
            updates |= zip(indices, orthogonalize(torch.stack(momenta)), strict=True)
        return (updates[index] for index in range(len(matrices)))

    def _momentum(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        """Update the average of a matrix's gradients, and return Nesterov's look-ahead of it."""
        gradient, state = matrix.grad, self.state[matrix]
        assert gradient is not None
        if not state:
            # AdamW expects steps in the state of all parameters.
            state.update(step=torch.tensor(0.0), momentum_buffer=torch.zeros_like(gradient))
        state["step"] += 1
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def orthogonalize(x: Tensor) -> Tensor:
    """Replace the singular values of matrices by numbers close to 1 (about 0.7 to 1.2), by Newton-Schulz iteration.

    Args:
        x: matrices (..., rows, columns). On a GPU, the result is computed in bfloat16.

    Returns:
        U S V^T of x = U D V^T, with S close to 1; of the type of ``x``. 0 for 0.
    """
    a, b, c = COEFFICIENTS
    y = x.bfloat16() if x.is_cuda else x
    is_tall = x.shape[-2] > x.shape[-1]
    if is_tall:
        y = y.mT
    y = y / torch.linalg.matrix_norm(y, keepdim=True).clamp(min=1e-7)
    for _ in range(NUM_ITERATIONS):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    return (y.mT if is_tall else y).to(x.dtype)
