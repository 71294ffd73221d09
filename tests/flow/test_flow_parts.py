"""Frames of any size, in overlapping parts that are blended into each other."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from perceiver_plugins.flow.parts import flow_of_frames, part_starts, part_weights, parts_of


class Model:
    """Tells the same flow as a lookup in the colours of the first frame; remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.sizes: set[torch.Size] = set()

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(frames))
        self.sizes.add(frames.shape[1:])
        return frames[:, 0, :2]


@pytest.mark.parametrize(
    ("length", "part", "overlap", "starts"),
    [
        (368, 368, 20, [0]),  # where the authors' code would compute it twice
        (369, 368, 20, [0, 1]),
        (716, 368, 20, [0, 348]),
        (717, 368, 20, [0, 348, 349]),
        (10, 4, 0, [0, 4, 6]),
        (12, 4, 0, [0, 4, 8]),
        (5, 1, 0, [0, 1, 2, 3, 4]),
    ],
)
def test_parts_cover_a_side_and_overlap(length, part, overlap, starts):
    found = part_starts(length, part, overlap)
    assert found == starts
    assert {place for start in found for place in range(start, start + part)} == set(range(length))
    assert all(after - before <= part - overlap for before, after in pairwise(found))


def test_parts_go_row_by_row():
    assert list(parts_of((8, 9), (8, 5), (2, 1))) == [(0, 0), (0, 4)]
    assert list(parts_of((9, 9), (5, 5))) == [(0, 0), (0, 4), (4, 0), (4, 4)]


def test_weights_fall_to_the_border_as_in_the_papers_code():
    height, width = 5, 8
    x, y = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    expected = torch.minimum(
        torch.minimum(x + 1, width - x), torch.minimum(y + 1, height - y)
    )  # deepmind-research, perceiver/colabs/optical_flow.ipynb
    torch.testing.assert_close(part_weights(height, width), expected.float())


def test_a_frame_of_exactly_the_size_of_a_part_runs_once():
    model, frames = Model(), torch.randn(2, 3, 8, 12)
    torch.testing.assert_close(flow_of_frames(model, frames, (8, 12), overlap=3), frames[0, :2])
    assert model.batches == [1]


@pytest.mark.parametrize("size", [(8, 13), (20, 12), (17, 29), (5, 30), (3, 4), (9, 5)])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_parts_come_together_in_any_size(size, batch_size):
    model, frames = Model(), torch.randn(2, 3, *size)
    flow = flow_of_frames(model, frames, (8, 12), overlap=3, batch_size=batch_size)
    torch.testing.assert_close(flow, frames[0, :2])
    assert model.sizes == {(2, 3, 8, 12)}
    assert max(model.batches) <= batch_size
    assert all(count == batch_size for count in model.batches[:-1])


def test_overlapping_parts_are_blended_by_their_weights():
    answers = iter([torch.zeros(1, 2, 6, 6), torch.ones(1, 2, 6, 6)])
    flow = flow_of_frames(lambda parts: next(answers), torch.zeros(2, 3, 6, 9), (6, 6), overlap=3)
    assert flow.shape == (2, 6, 9)
    weights = part_weights(6, 6)
    left, right = weights[:, 3:], weights[:, :3]
    torch.testing.assert_close(flow[0], torch.cat([torch.zeros(6, 3), right / (left + right), torch.ones(6, 3)], dim=1))


def test_the_overlap_is_half_a_part_at_most():
    model = Model()
    flow_of_frames(model, torch.randn(2, 3, 8, 24), (8, 12), overlap=20)
    assert len(model.batches) == len(part_starts(24, 12, 6)) == 3
