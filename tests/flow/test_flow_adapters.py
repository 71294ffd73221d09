"""Adapters of optical flow."""

from __future__ import annotations

import copy

import pytest
import torch

from perceiver_core import fourier_features, grid_positions
from perceiver_plugins.flow.adapters import FlowPatchesInputAdapter, extract_patches
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig
from perceiver_registry import assemble


@pytest.mark.parametrize("patch_size", [1, 3, 5])
def test_patches_are_the_neighbourhoods_of_pixels(patch_size):
    frames = torch.randn(2, 2, 3, 4, 6)
    patches = extract_patches(frames, patch_size)
    assert patches.shape == (2, 2, 4, 6, 3 * patch_size**2)
    half = patch_size // 2
    for y, x in ((0, 0), (2, 5), (3, 2)):
        expected = [
            frames[:, :, :, y + down, x + right] if 0 <= y + down < 4 and 0 <= x + right < 6 else torch.zeros(2, 2, 3)
            for down in range(-half, half + 1)
            for right in range(-half, half + 1)
        ]
        torch.testing.assert_close(patches[:, :, y, x], torch.cat(expected, dim=-1), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(8, 12), (5, 7), (13, 9)])
def test_input_is_patches_and_positions_of_the_training_size(size):
    adapter = FlowPatchesInputAdapter(FlowPatchesEncoderConfig(image_size=(8, 12), num_frequency_bands=4))
    frames = torch.randn(2, 2, 3, *size)
    x, pad_mask, _ = adapter({"frames": frames})
    assert (x.shape, pad_mask) == ((2, size[0] * size[1], adapter.num_input_channels), None)
    convolution = adapter.linear.weight.unflatten(1, (2, 3, 3, 3)).permute(0, 1, 4, 2, 3).flatten(1, 2)
    features = torch.nn.functional.conv2d(frames.flatten(1, 2), convolution, adapter.linear.bias, padding=1)
    torch.testing.assert_close(x[..., :64], features.flatten(2).transpose(1, 2))
    positions = fourier_features(grid_positions(size), 4, (8, 12))
    torch.testing.assert_close(x[..., 64:], positions.expand(2, -1, -1))


def test_positions_are_not_in_the_state_dict(flow_config):
    names = set(assemble(flow_config()).state_dict())
    assert {name for name in names if name.startswith("input_adapter")} == {
        "input_adapter.linear.weight",
        "input_adapter.linear.bias",
    }


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(1, 2, 27, 4, 4), r"frames of shape \(1, 2, 27, 4, 4\): must be \(pairs, 2, 3, height, width\)"),
        (torch.zeros(1, 3, 3, 4, 4), "must be"),
        (torch.zeros(2, 3, 4, 4), "must be"),
        (torch.zeros(1, 2, 3, 4, 4, dtype=torch.uint8), "torch.uint8: must be floating point numbers"),
    ],
)
def test_invalid_inputs_are_rejected(flow_config, frames, message):
    with pytest.raises(ValueError, match=message):
        assemble(flow_config())({"frames": frames})


@torch.no_grad()
def test_decoding_some_positions_equals_decoding_all(flow_module):
    model = flow_module().model
    batch = {"frames": torch.randn(3, 2, 3, 8, 12)}
    whole = model(batch)
    assert whole.shape == (3, 96, 2)
    positions = torch.randint(96, (3, 5))
    expected = whole.gather(1, positions[..., None].expand(-1, -1, 2))
    torch.testing.assert_close(model(batch, positions=positions), expected)


@torch.no_grad()
def test_output_is_divided_by_rescale_factor(flow_module):
    model = flow_module().model
    batch = {"frames": torch.randn(1, 2, 3, 8, 12)}
    other = copy.deepcopy(model)
    other.output_adapter.rescale_factor = 5.0
    torch.testing.assert_close(model(batch) * 20, other(batch))


@torch.no_grad()
def test_output_depends_on_both_frames_and_their_order(flow_module):
    model = flow_module().model
    frames = torch.randn(1, 2, 3, 8, 12)
    flow = model({"frames": frames})
    for other in (frames.flip(1), torch.cat([frames[:, :1], torch.randn(1, 1, 3, 8, 12)], dim=1)):
        assert (model({"frames": other}) - flow).abs().max() > 1e-2 * flow.abs().max()


@pytest.mark.parametrize(
    ("config_type", "values", "message"),
    [
        (FlowPatchesEncoderConfig, {"patch_size": 4}, "patch_size=4: must be odd"),
        (FlowPatchesEncoderConfig, {"image_size": [368]}, "image_size=.*must be a height and a width"),
        (FlowPatchesEncoderConfig, {"num_patch_channels": 0}, "num_patch_channels=0: must be at least 1"),
        (OpticalFlowDecoderConfig, {"rescale_factor": 0.0}, "rescale_factor=0.0: must be greater than 0"),
        (OpticalFlowDecoderConfig, {"flow_scale_factor": -1.0}, "flow_scale_factor=-1.0: must be greater than 0"),
    ],
)
def test_invalid_configs_are_rejected(config_type, values, message):
    with pytest.raises(ValueError, match=message):
        config_type(**values)
