"""Input adapters of feature vectors and point clouds."""

from __future__ import annotations

import math

import pytest
import torch

from perceiver_plugins.arrays import (
    FeaturesEncoderConfig,
    FeaturesInputAdapter,
    PointsEncoderConfig,
    PointsInputAdapter,
)


def test_points_are_coordinates_sines_cosines_and_features():
    adapter = PointsInputAdapter(
        PointsEncoderConfig(num_coordinates=2, num_features=1, num_frequency_bands=2, max_resolution=6)
    )
    coordinates, features = torch.tensor([[[0.25, -0.5]]]), torch.tensor([[[7.0]]])
    x, pad_mask, _ = adapter({"coordinates": coordinates, "features": features})
    # Two frequencies from 1 to half of the resolution.
    phases = [math.pi * frequency * position for position in (0.25, -0.5) for frequency in (1, 3)]
    expected = [0.25, -0.5, *map(math.sin, phases), *map(math.cos, phases), 7.0]
    torch.testing.assert_close(x, torch.tensor([[expected]]))
    assert pad_mask is None
    assert adapter.num_input_channels == len(expected)


def test_order_of_points_has_no_effect_on_their_encoding():
    adapter = PointsInputAdapter(PointsEncoderConfig())
    coordinates, order = torch.randn(2, 9, 3), torch.randperm(9)
    mask = (torch.arange(9) < torch.tensor([[9], [4]])).long()
    x, pad_mask, _ = adapter({"coordinates": coordinates, "attention_mask": mask})
    shuffled, shuffled_mask, _ = adapter({"coordinates": coordinates[:, order], "attention_mask": mask[:, order]})
    torch.testing.assert_close(shuffled, x[:, order])
    assert torch.equal(shuffled_mask, pad_mask[:, order])
    assert torch.equal(pad_mask, mask == 0)


def test_index_positions_do_not_depend_on_the_length_of_the_batch():
    adapter = FeaturesInputAdapter(FeaturesEncoderConfig(num_features=3, num_frequency_bands=4, max_positions=9))
    features = torch.randn(1, 20, 3)
    short, long = adapter({"features": features[:, :5]}).x, adapter({"features": features}).x
    torch.testing.assert_close(short, long[:, :5])
    torch.testing.assert_close(long[0, :9, 3], torch.linspace(-1, 1, 9))
    torch.testing.assert_close(adapter.position_layout().positions, long[0, :9, 3:])


def test_learned_positions_and_no_positions():
    learned = FeaturesInputAdapter(FeaturesEncoderConfig(num_features=3, positions="learned", max_positions=4))
    features = torch.randn(2, 4, 3)
    torch.testing.assert_close(learned({"features": features}).x[:, :, 3:], learned.table.expand(2, -1, -1))
    with pytest.raises(ValueError, match="5 feature vectors: must be at most max_positions=4"):
        learned({"features": torch.randn(1, 5, 3)})
    bare = FeaturesInputAdapter(FeaturesEncoderConfig(num_features=3, positions="none"))
    assert torch.equal(bare({"features": features}).x, features)
    assert bare.position_layout() is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: FeaturesEncoderConfig(num_features=1, positions="none"), "must be at least 2 without positions"),
        (lambda: FeaturesEncoderConfig(positions="sine"), "must be one of fourier, learned, none"),
        (lambda: PointsEncoderConfig(num_coordinates=0), "num_coordinates=0: must be at least 1"),
        (lambda: PointsEncoderConfig(num_features=-1), "num_features=-1: must not be negative"),
    ],
)
def test_invalid_configs(config, message):
    with pytest.raises(ValueError, match=message):
        config()


def test_batches_of_other_shapes_are_refused():
    adapter = PointsInputAdapter(PointsEncoderConfig(num_features=2))
    coordinates = torch.randn(1, 4, 3)
    for batch in (
        {"coordinates": torch.randn(1, 4, 2), "features": torch.randn(1, 4, 2)},
        {"coordinates": coordinates, "features": torch.randn(1, 4, 3)},
        {"coordinates": coordinates[0], "features": torch.randn(1, 4, 2)},
    ):
        with pytest.raises(ValueError, match=r"must be \(examples, vectors, numbers\)"):
            adapter(batch)
    with pytest.raises(ValueError, match="must be floating point"):
        adapter({"coordinates": coordinates.long(), "features": torch.randn(1, 4, 2)})
