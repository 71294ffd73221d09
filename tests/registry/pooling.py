"""Plugin with an architecture: the mean of the input array, mapped to the channels of the queries and added to them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from perceiver_core import Model, ModelConfig
from perceiver_core.config import require_positive
from perceiver_registry import ArchitectureSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

POOLING = ArchitectureSpec(
    name="pooling",
    model="pooling:Pooling",
    config="pooling:PoolingConfig",
    summary="the mean of the input array",
    example={"model.num_hidden_channels": 8},
)


@hookimpl
def perceiver_architectures():
    return [POOLING]


@hookimpl
def perceiver_tasks():
    return [
        TaskSpec(
            name="pooled-classification",
            module="perceiver_plugins.classification.lightning:LitClassifier",
            summary="classification with this architecture by default",
            data="random",
            defaults={
                "model.encoder": "image-pixels",
                "model.decoder": "classification",
                "model.num_hidden_channels": 12,
            },
            architecture="pooling",
        )
    ]


@dataclass
class PoolingConfig(ModelConfig):
    """Config of a mean-pooling network.

    Args:
        num_hidden_channels: channels of the hidden layer.
        params: source of the weights.
    """

    num_hidden_channels: int = 16
    params: str | None = None

    def __post_init__(self):
        super().__post_init__()
        require_positive(self, "num_hidden_channels")


class Pooling(Model):
    """Mean-pooling network."""

    def __init__(self, config, input_adapter, output_adapter):
        super().__init__()
        self.config = config
        self.input_adapter = input_adapter
        self.output_adapter = output_adapter
        self.hidden = nn.Linear(input_adapter.num_input_channels, config.num_hidden_channels)
        self.last = nn.Linear(config.num_hidden_channels, output_adapter.query_provider.num_query_channels)

    def compute(self, adapted, queries):
        return queries + self.last(self.hidden(self.mean(adapted)).relu())[:, None]

    def encode(self, batch):
        return self.mean(self.input_adapter(batch))[:, None]

    def mean(self, adapted):
        """Return the mean of the input array over real positions."""
        x, pad_mask = adapted.x, adapted.pad_mask
        if pad_mask is None:
            return x.mean(dim=1)
        real = (~pad_mask)[..., None].to(x.dtype)
        return (x * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
