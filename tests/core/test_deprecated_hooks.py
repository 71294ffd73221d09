"""Adapters with the hooks of interface 1.2 warn, and get the initial weights of those with a position layout."""

from __future__ import annotations

import warnings

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

GRID = (3, 4)
FOURIER = FourierPositions(2, GRID)


class Base(InputAdapter):
    """Learned positions of a sequence, beside the grid's Fourier positions."""

    def __init__(self) -> None:
        super().__init__(12)
        self.table = nn.Parameter(torch.zeros(12, 12))

    def forward(self, batch: Batch) -> AdaptedInput:
        return AdaptedInput(batch["x"] + self.table)


class Sequence(Base):
    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.table, self.table)


class OldSequence(Base):
    @property
    def position_table(self) -> Tensor:
        return self.table


class Grid(Base):
    def position_layout(self) -> PositionLayout:
        return PositionLayout(FOURIER(GRID).unflatten(0, GRID))


class OldGrid(Base):
    def positions_on_grid(self) -> Tensor:
        assert super().positions_on_grid() is None  # as in interface 1.2
        return FOURIER(GRID).unflatten(0, GRID)


class LearnedGrid(Base):
    def position_layout(self) -> PositionLayout:
        return PositionLayout(self.table.unflatten(0, GRID), self.table)


class OldLearnedGrid(OldSequence):
    def positions_on_grid(self) -> Tensor:
        table = super().positions_on_grid()
        assert table is self.table
        return table.unflatten(0, GRID)


class Queries(QueryProvider):
    """Learned queries of a third party."""

    def __init__(self, **options: bool) -> None:
        super().__init__(12, **options)
        self.queries = nn.Parameter(torch.zeros(5, 12))

    def forward(self, adapted: AdaptedInput, positions: Tensor | None = None) -> Tensor:
        return self.queries[None]


class OrderedQueries(Queries):
    def position_layout(self, inputs: PositionLayout | None) -> PositionLayout:
        return PositionLayout(self.queries, self.queries)


class OldQueries(Queries):
    @property
    def query_table(self) -> Tensor:
        return self.queries


class ComputedQueries(Queries):
    def position_layout(self, inputs: PositionLayout | None) -> PositionLayout | None:
        return None if inputs is None else PositionLayout(inputs.positions)


def weights(inputs: InputAdapter, queries: QueryProvider) -> dict[str, Tensor]:
    torch.manual_seed(0)
    encoder = EncoderConfig(2, num_self_attention_heads=2, num_self_attention_layers_per_block=1)
    config = PerceiverConfig(encoder, DecoderConfig(2), num_latents=5, num_latent_channels=14, init="local")
    return PerceiverIO(config, inputs, OutputAdapter(queries)).state_dict()


@pytest.mark.parametrize(
    ("new", "old"), [(Sequence, OldSequence), (Grid, OldGrid), (LearnedGrid, OldLearnedGrid)], ids=lambda c: c.__name__
)
def test_input_adapters_with_old_hooks_get_equal_initial_weights(new, old):
    expected = weights(new(), InputQueryProvider(12))
    with pytest.warns(DeprecationWarning, match=f"{old.__name__}: position_table and positions_on_grid: deprecated"):
        actual = weights(old(), InputQueryProvider(12))
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize("inputs", [Sequence, Grid])
@pytest.mark.parametrize(
    ("new", "old", "ordered"),
    [(OrderedQueries, OldQueries, True), (Queries, OldQueries, False), (ComputedQueries, Queries, True)],
)
def test_query_providers_with_old_hooks_get_equal_initial_weights(inputs, new, old, ordered):
    expected = weights(inputs(), new())
    with pytest.warns(DeprecationWarning, match=f"{old.__name__}: ordered={ordered}: deprecated"):
        provider = old(ordered=ordered)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        actual = weights(inputs(), provider)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_old_hooks_of_new_adapters_can_be_read():
    adapter, queries = LearnedGrid(), TrainableQueryProvider(3, 12)
    with pytest.warns(DeprecationWarning, match=r"LearnedGrid.position_table: .* \(use position_layout\(\).table\)"):
        assert adapter.position_table is adapter.table
    with pytest.warns(DeprecationWarning, match="LearnedGrid.positions_on_grid: deprecated since interface 2.0"):
        assert adapter.positions_on_grid().shape == (3, 4, 12)
    assert queries.query_table is queries.queries
    assert InputQueryProvider(12).query_table is None


def test_adapters_without_positions_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Base().position_layout() is None
        assert Queries().position_layout(None) is None
        weights(Sequence(), TrainableQueryProvider(3, 12))
