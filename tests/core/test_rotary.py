"""Rotary positions against rotations in the complex plane."""

from __future__ import annotations

import pytest
import torch

from perceiver_core import MultiHeadAttention, Rotary


@pytest.mark.parametrize("num_channels", [2, 6, 8])
def test_pairs_of_channels_turn_in_the_complex_plane(num_channels):
    x, positions = torch.randn(2, 3, 5, 8, dtype=torch.float64), torch.tensor([0, 1, 7, 100, 12345])
    rotated = Rotary.at(positions, num_channels, 500.0, torch.float64).rotate(x)
    for index, position in enumerate(positions.tolist()):
        for pair in range(num_channels // 2):
            angle = torch.tensor(position * 500.0 ** (-2 * pair / num_channels), dtype=torch.float64)
            turned = torch.view_as_complex(x[..., index, 2 * pair : 2 * pair + 2].contiguous()) * torch.exp(1j * angle)
            torch.testing.assert_close(rotated[..., index, 2 * pair : 2 * pair + 2], torch.view_as_real(turned))
    assert torch.equal(rotated[..., num_channels:], x[..., num_channels:])


def test_fewer_rows_are_at_the_last_positions():
    x, rotary = torch.randn(1, 2, 5, 4), Rotary.at(torch.arange(9), 4)
    torch.testing.assert_close(rotary.rotate(x), Rotary.at(torch.arange(4, 9), 4).rotate(x))


def test_examples_may_have_positions_of_their_own():
    x, positions = torch.randn(2, 3, 4, 6), torch.tensor([[0, 2, 3, 9], [1, 4, 6, 7]])
    rotated = Rotary.at(positions, 4).rotate(x)
    expected = torch.stack([Rotary.at(row, 4).rotate(each) for row, each in zip(positions, x, strict=True)])
    torch.testing.assert_close(rotated, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_data_type_is_kept(dtype):
    x = torch.randn(1, 2, 5, 4).to(dtype)
    rotary = Rotary.at(torch.arange(5), 4, dtype=dtype)
    assert rotary.rotate(x).dtype == dtype
    assert rotary.cos.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("num_heads", [1, 3])
def test_scores_depend_on_differences_of_positions(randomise, num_heads):
    """A single head, too, whose projections are otherwise absorbed."""
    attention = randomise(MultiHeadAttention(num_heads, 12, 12)).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    outputs = [
        attention(x[:, -3:], x, rotary=Rotary.at(torch.arange(first, first + 7), 4, dtype=x.dtype))[0]
        for first in (0, 31)
    ]
    torch.testing.assert_close(*outputs, atol=1e-12, rtol=0)
    assert (outputs[0] - attention(x[:, -3:], x)[0]).abs().max() > 1e-3
