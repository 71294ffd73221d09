"""Initial attention to a grid of positions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from perceiver_core import (
    AdaptedInput,
    Batch,
    DecoderConfig,
    EncoderConfig,
    FourierPositions,
    InputAdapter,
    InputQueryProvider,
    OutputAdapter,
    PerceiverConfig,
    PerceiverIO,
    PositionLayout,
    QueryProvider,
    TrainableQueryProvider,
)
from perceiver_core.local_init import grid_sinusoids, local_means, sinusoids, spread_evenly

GRIDS = [(40,), (12, 18), (20, 6), (4, 6, 6)]


class Given(InputAdapter):
    """Two channels of ``batch["x"]`` (b, m, 2), then Fourier positions."""

    def __init__(self, grid: tuple[int, ...]):
        self.positions = FourierPositions(8, grid)
        self.grid = grid
        super().__init__(2 + self.positions.num_channels)

    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.positions(self.grid).unflatten(0, self.grid))

    def forward(self, batch: Batch) -> AdaptedInput:
        x = batch["x"]
        return AdaptedInput(torch.cat([x, self.positions(self.grid).expand(x.shape[0], -1, -1)], dim=-1))


class Learned(InputAdapter):
    """Two channels of ``batch["x"]`` (b, m, 2), then learned positions."""

    def __init__(self, grid: tuple[int, ...]):
        super().__init__(2 + 36)
        self.grid = grid
        self.table = nn.Parameter(torch.randn(math.prod(grid), 36))

    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.table.unflatten(0, self.grid), self.table)

    def forward(self, batch: Batch) -> AdaptedInput:
        x = batch["x"]
        return AdaptedInput(torch.cat([x, self.table.expand(x.shape[0], -1, -1)], dim=-1))


def build(adapter: InputAdapter, queries: QueryProvider, init: str = "local", num_latents: int = 7) -> PerceiverIO:
    torch.manual_seed(1)
    encoder = EncoderConfig(
        2,
        num_cross_attention_qk_channels=64,
        num_cross_attention_layers=2,
        num_self_attention_heads=1,
        num_self_attention_layers_per_block=1,
        num_self_attention_blocks=2,
    )
    decoder = DecoderConfig(1, num_cross_attention_qk_channels=64)
    config = PerceiverConfig(encoder, decoder, num_latents=num_latents, num_latent_channels=48, init=init)
    return PerceiverIO(config, adapter, OutputAdapter(queries))


def grid_coordinates(grid: tuple[int, ...]) -> Tensor:
    """Coordinates (m, d) of the grid's positions, row by row."""
    axes = torch.meshgrid(*(torch.arange(length) + 0.5 for length in grid), indexing="ij")
    return torch.stack(axes, dim=-1).flatten(0, -2)


@pytest.mark.parametrize(
    ("adapter", "grid"), [*((Given, grid) for grid in GRIDS), *((Learned, grid) for grid in GRIDS[1:])]
)
def test_local_attention_is_centred_on_the_position_of_each_latent(adapter, grid):
    model = build(adapter(grid), QueryProvider(5))
    adapted = model.input_adapter({"x": torch.zeros(1, math.prod(grid), 2)})
    weights = model.encoder.cross_attention_layers[0](model.encoder.latents[None], adapted.x, return_attention=True)[1]
    weights = weights[0].mean(dim=0)
    distance = (math.prod(grid) / 7) ** (1 / len(grid))  # of two latents
    expected = torch.tensor(spread_evenly(7, grid))
    errors = (weights @ grid_coordinates(grid) - expected).norm(dim=1)
    assert errors.mean() < distance / 2
    assert errors.max() < distance
    # A latent reads about its share of the positions.
    num_read = (-weights * (weights + 1e-12).log()).sum(dim=1).exp()
    assert num_read.max() < 3 * math.prod(grid) / 7
    assert num_read.min() > 0.1 * math.prod(grid) / 7


@pytest.mark.parametrize(("grid", "num_latents"), [((1, 1), 3), ((1, 30), 1), ((5, 4), 40)])
def test_local_is_finite_with_few_positions_or_latents(grid, num_latents):
    model = build(Given(grid), QueryProvider(5), num_latents=num_latents)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_normal_attention_reads_all_of_the_grid():
    model = build(Given((12, 18)), QueryProvider(5), init="normal")
    adapted = model.input_adapter({"x": torch.zeros(1, 216, 2)})
    weights = model.encoder.cross_attention_layers[0](model.encoder.latents[None], adapted.x, return_attention=True)[1]
    num_read = (-weights * weights.log()).sum(dim=-1).exp()
    assert num_read.min() > 180


@pytest.mark.parametrize("queries", [QueryProvider(5), TrainableQueryProvider(9, 14)], ids=["given", "learned"])
def test_local_leaves_a_decoder_unchanged_unless_its_queries_are_the_input(queries):
    before = {key: value.clone() for key, value in queries.state_dict().items()}
    normal, local = (build(Given((6, 5)), queries, init).state_dict() for init in ("normal", "local"))
    changed = {key for key in normal if not torch.equal(normal[key], local[key])}
    layers = [f"encoder.cross_attention_layers.{index}.attention" for index in range(2)]
    assert changed == {"encoder.latents", *(f"{layer}.{name}_proj.weight" for layer in layers for name in "qkvo")}
    torch.testing.assert_close(queries.state_dict(), before, rtol=0, atol=0)


def test_local_input_queries_attend_to_the_nearest_latents():
    grid = (12, 18)
    adapter = Given(grid)
    model = build(adapter, InputQueryProvider(adapter.num_input_channels), num_latents=24)
    queries = model.input_adapter({"x": torch.zeros(1, 216, 2)}).x
    weights = model.decoder.cross_attention_layer(queries, model.encoder.latents[None], return_attention=True)[1]
    centres = weights[0, 0] @ torch.tensor(spread_evenly(24, grid))
    assert (centres - grid_coordinates(grid)).norm(dim=1).mean() < 3.0  # two latents are 3 positions apart


def test_local_latents_are_as_large_as_normal_ones():
    latents = build(Given((12, 18)), QueryProvider(5)).encoder.latents
    assert latents[:, :34].square().mean().sqrt().item() == pytest.approx(0.02, rel=0.01)
    assert latents[:, 34:].std().item() == pytest.approx(0.02, rel=0.25)


def test_spread_points_are_even_in_rows():
    assert spread_evenly(4, (8,)) == [(1.0,), (3.0,), (5.0,), (7.0,)]
    assert spread_evenly(4, (2, 2)) == [(0.5, 0.5), (0.5, 1.5), (1.5, 0.5), (1.5, 1.5)]
    assert spread_evenly(3, (2, 6)) == [(1.0, 1.0), (1.0, 3.0), (1.0, 5.0)]


@pytest.mark.parametrize("grid", [(7,), (5, 9), (28, 28), (1, 30), (3, 4, 5)])
@pytest.mark.parametrize("number", [1, 2, 7, 32, 101])
def test_spread_points_have_the_requested_number_within_the_grid(grid, number):
    points = torch.tensor(spread_evenly(number, grid))
    assert points.shape == (number, len(grid))
    assert (points > 0).all()
    assert (points < torch.tensor(grid)).all()
    assert len({tuple(point) for point in points.tolist()}) == number
    middle = torch.tensor(grid) / 2
    assert ((points.mean(dim=0) - middle).abs() / middle).max() < 0.2


def test_local_means_are_means_around_evenly_spread_points():
    positions = grid_coordinates((12, 18))
    means, weights = local_means(positions.view(12, 18, 2), 6)
    torch.testing.assert_close(means, torch.tensor(spread_evenly(6, (12, 18))), atol=1.0, rtol=0)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
    distances = torch.cdist(torch.tensor(spread_evenly(6, (12, 18))), positions)
    near = weights[distances < 3.0].min()  # neighbours are 6 apart
    assert near > weights[distances > 3.0].max()
    ones, _ = local_means(torch.ones(3, 4, 5), 50)
    torch.testing.assert_close(ones, torch.ones(50, 5))


def test_sinusoids_of_a_grid_are_those_of_each_of_its_dimensions():
    waves = grid_sinusoids((6, 9), 21)
    torch.testing.assert_close(waves[:, 4, :10], sinusoids(6, 10, max_frequency=3))
    torch.testing.assert_close(waves[2, :, 10:20], sinusoids(9, 10, max_frequency=4.5))
    assert waves[..., 20].eq(0).all()
