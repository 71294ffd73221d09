"""Initial attention of models to images."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from perceiver_core import DecoderConfig, OutputAdapter, PerceiverConfig, PerceiverIO, QueryProvider
from perceiver_core.local_init import spread_evenly
from perceiver_plugins.image.adapters import (
    ImageConvInputAdapter,
    ImageLearnedInputAdapter,
    ImagePatchesInputAdapter,
    ImagePixelsInputAdapter,
    ImageStagesInputAdapter,
)
from perceiver_plugins.image.config import (
    ImageConvEncoderConfig,
    ImageLearnedEncoderConfig,
    ImagePatchesEncoderConfig,
    ImagePixelsEncoderConfig,
    ImageStagesEncoderConfig,
)

SIZE = (28, 20)
ENCODERS = {
    "pixels": (ImagePixelsInputAdapter, ImagePixelsEncoderConfig, {"max_resolution": SIZE, "num_frequency_bands": 16}),
    "learned": (
        ImageLearnedInputAdapter,
        ImageLearnedEncoderConfig,
        {"image_size": SIZE, "num_conv_channels": 24, "num_position_channels": 48},
    ),
    "conv": (
        ImageConvInputAdapter,
        ImageConvEncoderConfig,
        {"max_resolution": (7, 5), "num_conv_channels": 24, "num_frequency_bands": 16},
    ),
    "stages": (
        ImageStagesInputAdapter,
        ImageStagesEncoderConfig,
        {"max_resolution": (7, 5), "num_stages": 2, "num_conv_channels": 24, "num_frequency_bands": 16},
    ),
    "patches": (
        ImagePatchesInputAdapter,
        ImagePatchesEncoderConfig,
        {"max_resolution": (14, 10), "patch_size": 2, "num_patch_channels": 24, "num_frequency_bands": 12},
    ),
}


def distances(name: str, init: str, num_latents: int = 8) -> torch.Tensor:
    """Compute the mean distance of each latent's attention to its position, in units of the latents' spacing."""
    torch.manual_seed(0)
    adapter_type, config_type, values = ENCODERS[name]
    shared: dict[str, Any] = {
        "num_channels": 1,
        "num_cross_attention_heads": 1,
        "num_self_attention_heads": 1,
        "num_self_attention_layers_per_block": 1,
    }
    config = config_type(**values, **shared)
    adapter = adapter_type.from_config(config)
    whole = PerceiverConfig(config, DecoderConfig(1), num_latents, num_latent_channels=64, init=init)
    model = PerceiverIO(whole, adapter, OutputAdapter(QueryProvider(8))).eval()
    adapted = adapter({"pixel_values": torch.randn(4, 1, *SIZE)})
    layer = model.encoder.cross_attention_layers[0]
    weights = layer(model.encoder.latents[None], adapted.x, return_attention=True)[1].mean(dim=(0, 1))
    grid = adapter.grid(*SIZE)
    positions = torch.cartesian_prod(*(torch.arange(length) + 0.5 for length in grid))
    between = math.sqrt(math.prod(grid) / num_latents)
    return (weights @ positions - torch.tensor(spread_evenly(num_latents, grid))).norm(dim=1) / between


@pytest.mark.parametrize("name", ENCODERS)
def test_local_init_centres_attention_on_each_latent(name):
    assert distances(name, "local").median() < 0.4
    assert distances(name, "normal").median() > 0.8


@pytest.mark.parametrize("name", ENCODERS)
def test_position_layout_is_the_last_channels_of_the_input(name):
    adapter_type, config_type, values = ENCODERS[name]
    adapter = adapter_type.from_config(config_type(num_channels=1, **values)).eval()
    positions = adapter.position_layout().positions
    x = adapter({"pixel_values": torch.randn(2, 1, *adapter.image_size)}).x
    assert positions.shape[:-1] == adapter.grid(*adapter.image_size)
    torch.testing.assert_close(x[0, :, -positions.shape[-1] :], positions.flatten(0, 1), rtol=0, atol=0)
    torch.testing.assert_close(x[1, :, -positions.shape[-1] :], positions.flatten(0, 1), rtol=0, atol=0)
