"""Output adapters that know no modality: classes, numbers, and a class for each place of the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_core import (
    InputAdapter,
    InputQueryProvider,
    Linear,
    OutputAdapter,
    QueryProvider,
    TrainableQueryProvider,
)
from perceiver_plugins.classification.config import (
    ClassificationDecoderConfig,
    RegressionDecoderConfig,
    TokenClassificationDecoderConfig,
)


class LinearOutputAdapter(OutputAdapter):
    """A linear layer on what the decoder answers.

    Args:
        query_provider: the output queries, f channels each.
        num_outputs: numbers that are made of each answer.
        init_scale: standard deviation of the normal initialisation.
        one_place: whether there is one output query, so that the output has no dimension for its place.
    """

    def __init__(
        self, query_provider: QueryProvider, num_outputs: int, init_scale: float = 0.02, one_place: bool = False
    ):
        super().__init__(query_provider)
        self.one_place = one_place
        self.linear = Linear(query_provider.num_query_channels, num_outputs)
        nn.init.normal_(self.linear.weight, 0.0, init_scale)
        nn.init.zeros_(self.linear.bias)

    def forward(self, decoded: Tensor) -> Tensor:
        """Returns (..., ``num_outputs``) for the decoder's output (..., f); for one place (b, ``num_outputs``)."""
        output = self.linear(decoded)
        # Answers that were chosen by a mask, (p, f), have no dimension for the place already.
        return output.squeeze(-2) if self.one_place and decoded.dim() == 3 else output


class ClassificationOutputAdapter(LinearOutputAdapter):
    """Logits of the classes that the whole input may belong to: (b, classes), or (b, q, classes) for q > 1 queries."""

    output_name = "logits"

    @classmethod
    def from_config(
        cls, config: ClassificationDecoderConfig, input_adapter: InputAdapter
    ) -> ClassificationOutputAdapter:
        queries = TrainableQueryProvider(
            config.num_output_queries, config.num_output_query_channels, config.init_scale, ordered=False
        )
        return cls(queries, config.num_classes, config.init_scale, one_place=config.num_output_queries == 1)


class TokenClassificationOutputAdapter(LinearOutputAdapter):
    """Logits of the classes that each place of the input may belong to: (..., classes)."""

    output_name = "logits"

    @classmethod
    def from_config(
        cls, config: TokenClassificationDecoderConfig, input_adapter: InputAdapter
    ) -> TokenClassificationOutputAdapter:
        return cls(InputQueryProvider(input_adapter.num_input_channels), config.num_classes, config.init_scale)


class RegressionOutputAdapter(LinearOutputAdapter):
    """A vector of numbers, in the units of the training data and in double precision.

    Double precision, as 32 bits cannot tell apart what lies close together far from zero: of timestamps in seconds they
    keep the minutes.

    Args:
        query_provider: one output query.
        num_outputs: length t of the vector.
        mean: (t) what is predicted where the linear layer says 0.
        std: (t) what a step of 1 of the linear layer is worth.
        init_scale: standard deviation of the normal initialisation.
    """

    output_name = "predictions"

    def __init__(
        self,
        query_provider: QueryProvider,
        num_outputs: int,
        mean: list[float] | None = None,
        std: list[float] | None = None,
        init_scale: float = 0.02,
    ):
        super().__init__(query_provider, num_outputs, init_scale, one_place=True)
        # No buffers: precision plugins round those.
        self.mean = list(mean or [0.0] * num_outputs)
        self.std = list(std or [1.0] * num_outputs)

    @classmethod
    def from_config(cls, config: RegressionDecoderConfig, input_adapter: InputAdapter) -> RegressionOutputAdapter:
        queries = TrainableQueryProvider(1, config.num_output_query_channels, config.init_scale, ordered=False)
        return cls(queries, config.num_targets, config.target_mean, config.target_std, config.init_scale)

    def standardise(self, numbers: Tensor) -> Tensor:
        """Numbers (..., t) as deviations from the mean in units of the standard deviation."""
        mean, std = self.units(numbers.device)
        return (numbers.to(mean.dtype) - mean) / std

    def units(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (t) on a device."""
        dtype = exact_dtype(device)
        return torch.tensor(self.mean, dtype=dtype, device=device), torch.tensor(self.std, dtype=dtype, device=device)

    def forward(self, decoded: Tensor) -> Tensor:
        """Return (b, t) float64 for the decoder's output (b, 1, f)."""
        standardised = super().forward(decoded)
        mean, std = self.units(standardised.device)
        return standardised.to(mean.dtype) * std + mean


def exact_dtype(device: torch.device) -> torch.dtype:
    """The most exact data type that a device computes in: Apple's GPUs have no double precision."""
    return torch.float32 if device.type == "mps" else torch.float64
