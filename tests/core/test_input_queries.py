"""Input queries: one output for each input position."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from perceiver_core import (
    AdaptedInput,
    DecoderConfig,
    EncoderConfig,
    InputQueryProvider,
    OutputAdapter,
    PerceiverConfig,
    PerceiverIO,
    PositionLayout,
)


class PlaceOutput(OutputAdapter):
    """Linear layer on the decoder output at each input position."""

    def __init__(self, num_input_channels: int):
        super().__init__(InputQueryProvider(num_input_channels))
        self.linear = nn.Linear(num_input_channels, 3)

    def forward(self, decoded: Tensor) -> Tensor:
        return self.linear(decoded)


@pytest.fixture
def model(input_adapter, randomise) -> PerceiverIO:
    config = PerceiverConfig(
        EncoderConfig(3, num_self_attention_heads=3, num_self_attention_layers_per_block=1),
        DecoderConfig(2),
        num_latents=5,
        num_latent_channels=9,
    )
    return randomise(PerceiverIO(config, input_adapter, PlaceOutput(input_adapter.num_input_channels)))


def test_the_queries_are_the_input():
    provider, x = InputQueryProvider(4), torch.randn(3, 7, 4)
    assert provider(AdaptedInput(x)) is x
    layout = PositionLayout(torch.zeros(7, 4))
    assert provider.position_layout(layout) is layout
    assert provider.num_query_channels == 4
    assert not list(provider.parameters())


@pytest.mark.parametrize("num_positions", [0, 1, 5, 11])
def test_the_queries_of_positions_are_the_input_there(num_positions):
    x, positions = torch.randn(3, 7, 4), torch.randint(7, (3, num_positions))
    queries = InputQueryProvider(4)(AdaptedInput(x), positions)
    assert queries.shape == (3, num_positions, 4)
    for i in range(3):
        assert torch.equal(queries[i], x[i][positions[i]])


def test_selected_positions_equal_those_of_the_full_output(model, batch):
    all_outputs = model(batch)
    assert all_outputs.shape == (3, 13, 3)
    positions = torch.tensor([[12, 0, 5, 5], [3, 2, 1, 0], [0, 7, 7, 9]])
    torch.testing.assert_close(model(batch, positions), all_outputs[torch.arange(3)[:, None], positions])
    mask = torch.rand(3, 13) < 0.4
    mask[1] = False
    torch.testing.assert_close(model(batch, mask), all_outputs[mask])
    assert model(batch, torch.zeros_like(mask)).shape == (0, 3)


def test_padding_is_queried_but_not_attended_to(model, batch):
    other = {**batch, "x": batch["x"].masked_fill(batch["pad_mask"][..., None], 7.0)}
    real = ~batch["pad_mask"]
    torch.testing.assert_close(model(other)[real], model(batch)[real])
    assert not torch.allclose(model(other)[~real], model(batch)[~real])


def test_gradients_reach_the_input_through_queries(model, batch):
    """Through the queries alone, where what the latents read has no gradient."""
    adapted = model.input_adapter(batch)
    latents = model.encoder(adapted).detach()
    positions = torch.tensor([[4, 4], [4, 2], [2, 4]])
    queries = model.output_adapter.query_provider(adapted, positions)
    model.output_adapter(model.decoder(queries, latents)).sum().backward()
    touched = model.input_adapter.positions.grad.abs().sum(dim=1) > 0
    assert torch.equal(touched.nonzero().flatten(), torch.tensor([2, 4]))
