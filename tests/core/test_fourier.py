"""Fourier positions are Hugging Face's, in any number of dimensions, and are no state of a model."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from transformers.models.perceiver.modeling_perceiver import PerceiverFourierPositionEncoding, generate_fourier_features

from perceiver_core import FourierPositions, fourier_features, grid_positions


@pytest.mark.parametrize(
    ("shape", "num_bands", "max_resolution"),
    [
        ((11,), 5, (9,)),
        ((20, 28), 64, (224, 224)),
        ((55, 3), 7, (56, 12)),
        ((3, 5, 4), 6, (16, 7, 224)),
        ((2, 1, 3, 2), 1, (4, 8, 3, 2)),
    ],
)
def test_positions_are_those_of_hugging_face(shape, num_bands, max_resolution):
    theirs = PerceiverFourierPositionEncoding(num_bands, max_resolution)
    positions = FourierPositions(num_bands, max_resolution)
    for dtype in (torch.float32, torch.bfloat16):
        expected = theirs(list(shape), 1, torch.device("cpu"), dtype)[0]
        assert expected.shape == (math.prod(shape), positions.num_channels)
        torch.testing.assert_close(positions(shape, dtype=dtype), expected, rtol=0, atol=1e-6)


def test_features_of_any_positions_are_those_of_hugging_face():
    positions = 2 * torch.rand(9, 3) - 1
    expected = generate_fourier_features(positions[None], 5, (8, 9, 30))[0]
    torch.testing.assert_close(fourier_features(positions, 5, (8, 9, 30)), expected, rtol=0, atol=1e-6)
    assert fourier_features(positions.reshape(3, 3, 3), 5, (8, 9, 30)).shape == (3, 3, 33)


def test_channels_are_positions_then_sines_then_cosines_of_each_dimension():
    height, width, num_bands, max_resolution = 4, 7, 3, (10, 20)
    positions = FourierPositions(num_bands, max_resolution)((height, width))
    row, column = 2, 5
    at = (-1 + 2 * row / (height - 1), -1 + 2 * column / (width - 1))
    phases = [
        math.pi * at[d] * (1 + (max_resolution[d] / 2 - 1) * band / (num_bands - 1))
        for d in range(2)
        for band in range(num_bands)
    ]
    expected = [*at, *map(math.sin, phases), *map(math.cos, phases)]
    torch.testing.assert_close(positions[row * width + column], torch.tensor(expected), rtol=0, atol=1e-5)


def test_axis_of_length_one_starts_at_minus_one():
    assert grid_positions((1, 1, 1)).tolist() == [[-1.0, -1.0, -1.0]]


@pytest.mark.parametrize("shape", [(9,), (7, 1), (4, 6, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_grid_positions_are_the_features_of_their_coordinates(shape, dtype):
    resolution = tuple(range(8, 8 + len(shape)))
    expected = fourier_features(grid_positions(shape), 3, resolution).to(dtype)
    torch.testing.assert_close(FourierPositions(3, resolution)(shape, dtype=dtype), expected, rtol=0, atol=0)
    assert FourierPositions(3, resolution)(shape, device=torch.device("meta")).is_meta


class Model(nn.Module):
    """Appends positions and mixes the channels."""

    def __init__(self):
        super().__init__()
        self.positions = FourierPositions(4, (9, 9))
        self.linear = nn.Linear(3 + self.positions.num_channels, 2)

    def forward(self, x):
        positions = self.positions(x.shape[2:], x.device, x.dtype).expand(x.shape[0], -1, -1)
        return self.linear(torch.cat([x.flatten(2).transpose(1, 2), positions], dim=-1))


def test_cached_positions_are_not_saved_or_copied():
    model, x = Model(), torch.randn(2, 3, 40, 50)
    expected = model(x)
    assert set(model.state_dict()) == {"linear.weight", "linear.bias"}
    assert len(pickle.dumps(model)) < 10_000
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)


def test_positions_cached_in_inference_mode_work_in_training():
    positions, scale = FourierPositions(3, (5,)), torch.ones(7, requires_grad=True)
    with torch.inference_mode():
        positions((13,))
    (positions((13,)) * scale).sum().backward()  # needs the positions in the backward pass
    torch.testing.assert_close(scale.grad, positions((13,)).sum(dim=0))


def test_export_leaves_no_cached_positions():
    model, x = Model(), torch.randn(2, 3, 6, 11)
    exported = torch.export.export(model, (x,))
    torch.testing.assert_close(exported.module()(x), model(x))
    assert type(model.positions((6, 11))) is torch.Tensor


def test_a_grid_of_other_dimensions_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 4, 5\) must have the 2 dimensions of max_resolution=\(8, 8\)"):
        FourierPositions(2, (8, 8))((3, 4, 5))
