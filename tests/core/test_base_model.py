"""The base classes of architectures: positions and context of outputs, and fields that an architecture does not use."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch

from perceiver_core import (
    AdaptedInput,
    DecoderConfig,
    EncoderConfig,
    InputAdapter,
    Model,
    ModelConfig,
    OutputAdapter,
    PerceiverConfig,
    PerceiverIO,
    TrainableQueryProvider,
)


@dataclass
class SumConfig(ModelConfig):
    """Config of the architecture below, which uses one field of each part."""

    encoder_fields = ("dropout",)
    decoder_fields = ("freeze",)

    params: str | None = None


class Numbers(InputAdapter):
    """Input array with a context for each of five output positions."""

    def __init__(self):
        super().__init__(3)

    def forward(self, batch):
        return AdaptedInput(batch["x"], context={"shift": batch["shift"][..., None]})


class Shifted(OutputAdapter):
    """Decoded queries plus the context."""

    def __init__(self):
        super().__init__(TrainableQueryProvider(num_queries=5, num_query_channels=3, init_scale=1.0))

    def forward(self, decoded):
        return decoded

    def apply_context(self, output, context):
        return output + context["shift"]


class Sum(Model):
    """Sum of the input array, added to each query."""

    def __init__(self):
        super().__init__()
        self.config = SumConfig(EncoderConfig(), DecoderConfig())
        self.input_adapter, self.output_adapter = Numbers(), Shifted()

    def compute(self, adapted, queries):
        return queries + adapted.x.sum(dim=1, keepdim=True)


@pytest.fixture
def batch():
    return {"x": torch.randn(2, 7, 3), "shift": torch.randn(2, 5)}


def test_output_at_all_positions(batch):
    model = Sum()
    expected = model.output_adapter.query_provider.queries + batch["x"].sum(1)[:, None] + batch["shift"][..., None]
    torch.testing.assert_close(model(batch), expected)


def test_output_at_some_positions(batch):
    model = Sum()
    whole, positions = model(batch), torch.tensor([[4, 0, 4], [2, 1, 3]])
    torch.testing.assert_close(model(batch, positions), whole[torch.arange(2)[:, None], positions])
    mask = torch.tensor([[True, False, True, True, False], [False, False, False, True, False]])
    torch.testing.assert_close(model(batch, positions=mask), whole[mask])
    with pytest.raises(ValueError, match=r"a boolean mask must have the output's shape \(2, 5\), got \(2, 4\)"):
        model(batch, positions=mask[:, :4])


def test_compute_must_be_implemented(batch):
    class Nothing(Sum):
        compute = Model.compute

    with pytest.raises(NotImplementedError, match=r"Nothing\.compute"):
        Nothing()(batch)


@pytest.mark.parametrize(
    ("part", "values", "field"),
    [
        (EncoderConfig, {"num_self_attention_heads": 4}, "encoder.num_self_attention_heads=4"),
        (EncoderConfig, {"params": "a.ckpt"}, "encoder.params='a.ckpt'"),
        (DecoderConfig, {"dropout": 0.5}, "decoder.dropout=0.5"),
    ],
)
def test_fields_without_effect_are_refused(part, values, field):
    parts = {"encoder": EncoderConfig(), "decoder": DecoderConfig()}
    parts[field.partition(".")[0]] = part(**values)
    with pytest.raises(ValueError, match=rf"^SumConfig\.{field}: has no effect in this architecture \(leave it out\)$"):
        SumConfig(**parts)
    assert PerceiverConfig(**parts)


def test_used_fields_and_fields_of_adapters_are_accepted():
    @dataclass
    class OwnEncoderConfig(EncoderConfig):
        num_self_attention_heads: int = 2  # another default
        size: int = 3

    config = SumConfig(OwnEncoderConfig(dropout=0.1, init_scale=1.0, size=5), DecoderConfig(freeze=True))
    assert replace(config, params="a.ckpt").without_params() == config
    assert "dropout" not in SumConfig.unused_fields("encoder")
    assert SumConfig.unused_fields("decoder") == {
        field for field in DecoderConfig.__dataclass_fields__ if field not in ("freeze", "init_scale")
    }
    assert not PerceiverConfig.unused_fields("encoder")


def test_children_of_perceiver_io_keep_their_order(input_adapter, output_adapter):
    """Optimizer states are matched by index."""
    config = PerceiverConfig(EncoderConfig(), DecoderConfig(num_cross_attention_heads=1), 4, 16)
    model = PerceiverIO(config, input_adapter, output_adapter)
    assert [name for name, _ in model.named_children()] == ["input_adapter", "encoder", "decoder", "output_adapter"]
