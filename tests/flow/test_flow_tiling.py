"""Tiled prediction of optical flow."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from perceiver_plugins.flow.tiling import predict_tiled_flow, tile_corners, tile_starts, tile_weights


class Model:
    """Model that returns the first two channels of the first frame, and records batch sizes and shapes."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.sizes: set[torch.Size] = set()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(frames))
        self.sizes.add(frames.shape[1:])
        return frames[:, 0, :2]


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "starts"),
    [
        (368, 368, 20, [0]),  # the authors' code computes two tiles
        (369, 368, 20, [0, 1]),
        (716, 368, 20, [0, 348]),
        (717, 368, 20, [0, 348, 349]),
        (10, 4, 0, [0, 4, 6]),
        (12, 4, 0, [0, 4, 8]),
        (5, 1, 0, [0, 1, 2, 3, 4]),
    ],
)
def test_tiles_cover_a_side_and_overlap(length, tile, overlap, starts):
    found = tile_starts(length, tile, overlap)
    assert found == starts
    assert {pixel for start in found for pixel in range(start, start + tile)} == set(range(length))
    assert all(after - before <= tile - overlap for before, after in pairwise(found))


def test_tiles_are_ordered_by_rows():
    assert list(tile_corners((8, 9), (8, 5), (2, 1))) == [(0, 0), (0, 4)]
    assert list(tile_corners((9, 9), (5, 5))) == [(0, 0), (0, 4), (4, 0), (4, 4)]


def test_weights_equal_the_authors_code():
    height, width = 5, 8
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    expected = torch.minimum(
        torch.minimum(x + 1, width - x), torch.minimum(y + 1, height - y)
    )  # deepmind-research, perceiver/colabs/optical_flow.ipynb
    torch.testing.assert_close(tile_weights(height, width), expected.float())


def test_frame_of_the_tile_size_is_one_tile():
    model, frames = Model(), torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(predict_tiled_flow(model, frames, (8, 12), overlap=3), frames[0, :2])
    assert model.batches == [1]


@pytest.mark.parametrize(
    ("size", "batch_size"), [((8, 13), 1), ((20, 12), 3), ((17, 29), 3), ((5, 30), 100), ((3, 4), 1), ((9, 5), 100)]
)
def test_tiles_of_frames_of_any_size_are_joined(size, batch_size):
    model, frames = Model(), torch.randn(2, 3, *size)
    flow = predict_tiled_flow(model, frames, (8, 12), overlap=3, batch_size=batch_size)
    torch.testing.assert_close(flow, frames[0, :2])
    assert model.sizes == {(2, 3, 8, 12)}
    assert max(model.batches) <= batch_size
    assert all(count == batch_size for count in model.batches[:-1])


def test_overlapping_tiles_are_blended_by_weights():
    flows = iter([torch.zeros(1, 2, 6, 6), torch.ones(1, 2, 6, 6)])
    flow = predict_tiled_flow(lambda tiles: next(flows), torch.zeros(2, 3, 6, 9), (6, 6), overlap=3)
    assert flow.shape == (2, 6, 9)
    weights = tile_weights(6, 6)
    left, right = weights[:, 3:], weights[:, :3]
    torch.testing.assert_close(flow[0], torch.cat([torch.zeros(6, 3), right / (left + right), torch.ones(6, 3)], dim=1))


def test_overlap_is_limited_to_half_a_tile():
    model = Model()
    predict_tiled_flow(model, torch.randn(2, 3, 8, 24), (8, 12), overlap=20)
    assert len(model.batches) == len(tile_starts(24, 12, 6)) == 3
