"""Output adapters for any input: classification, token classification and regression."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from perceiver_core import (
    AdaptedInput,
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


class PooledQueryProvider(TrainableQueryProvider):
    """Learned queries plus a projection of the mean of the input array.

    With a residual connection around the decoder's cross-attention, the mean reaches the output without passing the
    latents, as in a linear model of a bag of words.

    Args:
        num_queries: output positions o.
        num_query_channels: output query channels f.
        num_input_channels: input channels c.
        init_scale: standard deviation of the normal initialisation.
    """

    def __init__(self, num_queries: int, num_query_channels: int, num_input_channels: int, init_scale: float = 0.02):
        super().__init__(num_queries, num_query_channels, init_scale, ordered=False)
        self.norm = nn.LayerNorm(num_input_channels)
        self.projection = Linear(num_input_channels, num_query_channels)
        nn.init.normal_(self.projection.weight, 0.0, init_scale)
        nn.init.zeros_(self.projection.bias)

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        """Return queries (b, o, f), or (b, p, f) for ``positions``."""
        return super().forward(adapted, positions) + self.projection(self.norm(mean_input(adapted)))


def mean_input(adapted: AdaptedInput) -> Tensor:
    """Return the mean of the input array over its positions, without padding: (b, 1, c). 0 if all is padding."""
    if adapted.pad_mask is None:
        return adapted.x.mean(1, keepdim=True)
    kept = ~adapted.pad_mask[..., None]
    return (adapted.x * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp(min=1)


class LinearOutputAdapter(OutputAdapter):
    """Linear layer on the decoder output.

    Args:
        query_provider: output queries (b or 1, o, f).
        num_outputs: output features per position.
        init_scale: standard deviation of the normal initialisation.
        squeeze: drop the dimension of output positions, for a single output query.
    """

    def __init__(
        self, query_provider: QueryProvider, num_outputs: int, init_scale: float = 0.02, squeeze: bool = False
    ):
        super().__init__(query_provider)
        self.squeeze = squeeze
        self.linear = Linear(query_provider.num_query_channels, num_outputs)
        nn.init.normal_(self.linear.weight, 0.0, init_scale)
        nn.init.zeros_(self.linear.bias)

    def forward(self, decoded: Tensor) -> Tensor:
        """Map the decoder output (..., f) to (..., ``num_outputs``), or (b, ``num_outputs``) with ``squeeze``."""
        output = self.linear(decoded)
        # Outputs selected by a boolean mask, (selected, f), have no dimension of positions.
        return output.squeeze(-2) if self.squeeze and decoded.dim() == 3 else output


class ClassificationOutputAdapter(LinearOutputAdapter):
    """Logits of the whole input: (b, classes), or (b, o, classes) with o > 1 output queries."""

    output_name = "logits"

    @classmethod
    def from_config(
        cls, config: ClassificationDecoderConfig, input_adapter: InputAdapter
    ) -> ClassificationOutputAdapter:
        return cls(
            learned_queries(config, config.num_output_queries, input_adapter),
            config.num_classes,
            config.init_scale,
            squeeze=config.num_output_queries == 1,
        )


class TokenClassificationOutputAdapter(LinearOutputAdapter):
    """Logits of each input position: (..., classes)."""

    output_name = "logits"

    @classmethod
    def from_config(
        cls, config: TokenClassificationDecoderConfig, input_adapter: InputAdapter
    ) -> TokenClassificationOutputAdapter:
        return cls(InputQueryProvider(input_adapter.num_input_channels), config.num_classes, config.init_scale)


class RegressionOutputAdapter(LinearOutputAdapter):
    """Targets in their original units, in double precision (single precision on Apple's GPUs).

    Single precision rounds large targets, for example Unix timestamps to minutes.

    Args:
        query_provider: a single output query.
        num_outputs: number t of targets.
        mean: (t) offset of the linear layer's output. None: 0.
        std: (t) scale of the linear layer's output. None: 1.
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
        super().__init__(query_provider, num_outputs, init_scale, squeeze=True)
        # No buffers: precision plugins would round them.
        self.mean = list(mean or [0.0] * num_outputs)
        self.std = list(std or [1.0] * num_outputs)

    @classmethod
    def from_config(cls, config: RegressionDecoderConfig, input_adapter: InputAdapter) -> RegressionOutputAdapter:
        queries = learned_queries(config, 1, input_adapter)
        return cls(queries, config.num_targets, config.target_mean, config.target_std, config.init_scale)

    def standardise(self, numbers: Tensor) -> Tensor:
        """Standardise numbers (..., t): subtract the mean and divide by the standard deviation."""
        mean, std = self.statistics(numbers.device)
        return (numbers.to(mean.dtype) - mean) / std

    def statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation, (t) each, on a device."""
        dtype = exact_dtype(device)
        return torch.tensor(self.mean, dtype=dtype, device=device), torch.tensor(self.std, dtype=dtype, device=device)

    def forward(self, decoded: Tensor) -> Tensor:
        """Map the decoder output (b, 1, f) to targets (b, t) of :func:`exact_dtype`."""
        standardised = super().forward(decoded)
        mean, std = self.statistics(standardised.device)
        return standardised.to(mean.dtype) * std + mean


def learned_queries(
    config: ClassificationDecoderConfig | RegressionDecoderConfig, num_queries: int, input_adapter: InputAdapter
) -> QueryProvider:
    """Create the provider of learned queries, with ``pool_inputs`` one that adds the mean of the input array."""
    channels, scale = config.num_output_query_channels, config.init_scale
    if config.pool_inputs:
        return PooledQueryProvider(num_queries, channels, input_adapter.num_input_channels, scale)
    return TrainableQueryProvider(num_queries, channels, scale, ordered=False)


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device: float64, or float32 on Apple's GPUs (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64
