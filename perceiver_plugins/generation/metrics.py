"""Metrics of causal models."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class NegativeLogLikelihood(Metric):
    """Base class of metrics that are functions of a negative log-likelihood per token or unit."""

    full_state_update = False
    higher_is_better = False

    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, total: Tensor, count: Tensor) -> None:
        """Add predictions.

        Args:
            total: scalar, the sum of their negative log-likelihoods in nats.
            count: scalar, their number of tokens or units.
        """
        self.total += total.detach()
        self.count += count

    def mean(self) -> Tensor:
        """Compute the mean in nats; NaN without predictions."""
        return self.total / self.count


class Perplexity(NegativeLogLikelihood):
    """Perplexity, the exponential of the mean negative log-likelihood."""

    def compute(self) -> Tensor:
        return self.mean().exp()


class NatsPerUnit(NegativeLogLikelihood):
    """Negative log-likelihood in nats per unit, such as a note of music."""

    def compute(self) -> Tensor:
        return self.mean()


class BitsPerUnit(NegativeLogLikelihood):
    """Negative log-likelihood in bits per unit, such as a byte of text.

    It does not depend on how a tokenizer divides the units.
    """

    def compute(self) -> Tensor:
        return self.mean() / math.log(2)
