"""Plugin for forecasting: output queries from future covariates, output in units of the series."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perceiver_core import (
    AdaptedInput,
    Batch,
    Context,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    OutputAdapter,
    QueryProvider,
    select_positions,
)
from perceiver_plugins.sdk.tasks import LitPerceiver, LossSum
from perceiver_registry import AdapterSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"

STEPS = 12
"""Steps of an example's series."""

HORIZON = 5
"""Steps of an example's forecast."""


@dataclass
class SeriesEncoderConfig(EncoderConfig):
    """Encoder of time series.

    Args:
        num_channels: input channels.
    """

    num_channels: int = 8


class SeriesInputAdapter(InputAdapter):
    """Input adapter for series of any scale, padded at the end, with known future covariates."""

    def __init__(self, num_channels: int):
        super().__init__(num_channels)
        self.linear = nn.Linear(2, num_channels)

    @classmethod
    def from_config(cls, config: SeriesEncoderConfig) -> SeriesInputAdapter:
        return cls(config.num_channels)

    def example_batch(self, batch_size: int, generator: torch.Generator) -> Batch:
        lengths = torch.randint(1, STEPS + 1, (batch_size, 1), generator=generator)
        scale = 10 ** (4 * torch.rand(batch_size, 1, generator=generator))
        return {
            "series": scale * torch.randn(batch_size, STEPS, generator=generator),
            "attention_mask": (torch.arange(STEPS) < lengths).long(),
            "covariates": torch.randn(batch_size, HORIZON, 2, generator=generator),
        }

    def forward(self, batch: Batch) -> AdaptedInput:
        """Read ``series`` (b, m), ``attention_mask`` (b, m) and ``covariates`` (b, o, 2)."""
        series, mask = batch["series"], batch["attention_mask"]
        scale = (series * mask).abs().sum(dim=1) / mask.sum(dim=1) + 1e-6
        steps = torch.arange(series.shape[1], device=series.device).to(series.dtype) / 8
        x = torch.stack([series / scale[:, None], steps.expand_as(series)], dim=-1)
        context = {"scale": scale[:, None], "covariates": batch["covariates"]}
        return AdaptedInput(self.linear(x), ~mask.bool(), context)


class CovariateQueries(QueryProvider):
    """Output queries from the covariates of each step of the horizon."""

    def __init__(self, num_query_channels: int):
        super().__init__(num_query_channels)
        self.linear = nn.Linear(3, num_query_channels)

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        covariates = adapted.context["covariates"]
        steps = torch.arange(covariates.shape[1], device=covariates.device).to(covariates.dtype) / 8
        features = torch.cat([covariates, steps[:, None].expand(covariates.shape[0], -1, 1)], dim=-1)
        return self.linear(select_positions(features, positions))


@dataclass
class ForecastDecoderConfig(DecoderConfig):
    """Decoder of forecasts.

    Args:
        num_output_query_channels: channels of the output queries.
    """

    num_output_query_channels: int = 8


class ForecastOutputAdapter(OutputAdapter):
    """Forecasts in units of the series."""

    output_name = "forecast"

    def __init__(self, num_query_channels: int):
        super().__init__(CovariateQueries(num_query_channels))
        self.linear = nn.Linear(num_query_channels, 1)

    @classmethod
    def from_config(cls, config: ForecastDecoderConfig, input_adapter: InputAdapter) -> ForecastOutputAdapter:
        return cls(config.num_output_query_channels)

    def forward(self, decoded: Tensor) -> Tensor:
        return self.linear(decoded)[..., 0]

    def apply_context(self, output: Tensor, context: Context) -> Tensor:
        return output * context["scale"]


class LitForecaster(LitPerceiver):
    """Lightning module whose loss is the mean absolute error relative to the mean target of each example."""

    task = "forecast"

    def example_labels(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return batch["series"].abs().mean(dim=1, keepdim=True) * batch["covariates"][..., 0]

    def loss_sum(self, batch: Batch) -> LossSum:
        labels = batch["labels"]
        errors = (self.model(batch) - labels).abs() / labels.abs().mean(dim=1, keepdim=True)
        return LossSum(errors.sum(), torch.tensor(errors.numel()))


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="forecast",
            kind="input",
            adapter="forecaster:SeriesInputAdapter",
            config="forecaster:SeriesEncoderConfig",
            summary="series with known future covariates",
            reads=("series", "attention_mask", "covariates"),
        ),
        AdapterSpec(
            name="forecast",
            kind="output",
            adapter="forecaster:ForecastOutputAdapter",
            config="forecaster:ForecastDecoderConfig",
            summary="forecasts in units of the series",
            tasks=("forecast",),
        ),
    ]


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="forecast",
            module="forecaster:LitForecaster",
            summary="forecast series",
            data="random",
            defaults={"model.encoder": "forecast", "model.decoder": "forecast"},
        )
    ]


def configs() -> tuple[SeriesEncoderConfig, ForecastDecoderConfig]:
    """Return the configurations of a small model."""
    encoder = SeriesEncoderConfig(
        num_cross_attention_heads=1, num_self_attention_heads=1, num_self_attention_layers_per_block=1
    )
    return encoder, ForecastDecoderConfig(num_cross_attention_heads=1)
