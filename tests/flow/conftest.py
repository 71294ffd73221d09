"""Fixtures: small optical flow models, and pairs of frames with known flow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceiver_core import PerceiverConfig
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig
from perceiver_plugins.flow.files import write_flo
from perceiver_plugins.flow.lightning import LitOpticalFlow


@pytest.fixture(autouse=True)
def _unset_global_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture
def flow_config() -> Callable[..., PerceiverConfig]:
    """Factory of configurations of small optical flow models."""

    def flow_config(encoder=None, decoder=None, **values) -> PerceiverConfig:
        small = {
            "image_size": (8, 12),
            "num_patch_channels": 16,
            "num_frequency_bands": 4,
            "num_cross_attention_heads": 1,
            "num_self_attention_heads": 2,
            "num_self_attention_layers_per_block": 1,
        }
        return PerceiverConfig(
            FlowPatchesEncoderConfig(**(small | (encoder or {}))),
            OpticalFlowDecoderConfig(**({"num_cross_attention_qk_channels": 16} | (decoder or {}))),
            **({"num_latents": 6, "num_latent_channels": 16} | values),
        )

    return flow_config


@pytest.fixture
def flow_module(flow_config, randomise) -> Callable[..., LitOpticalFlow]:
    """Factory of Lightning modules of small models with random weights."""

    def flow_module(encoder=None, decoder=None, **options) -> LitOpticalFlow:
        return randomise(LitOpticalFlow.create(flow_config(encoder, decoder), **options)).eval()

    return flow_module


@pytest.fixture
def frames() -> Callable[..., np.ndarray]:
    """Factory of random frames (number, height, width, 3), uint8, in blocks of 4x4 pixels."""

    def frames(number: int, height: int, width: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (number, -(-height // 4), -(-width // 4), 3), dtype=np.uint8)
        return coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width]

    return frames


@pytest.fixture
def chairs(tmp_path: Path, frames) -> Callable[..., Path]:
    """Factory of data sets in the layout of FlyingChairs; the flow of pair i is (i, -i)."""

    def chairs(
        number: int, size=(10, 14), ends=("_img1.ppm", "_img2.ppm", "_flow.flo"), folder: str = "chairs"
    ) -> Path:
        data = tmp_path / folder / "data"
        data.mkdir(parents=True)
        for i in range(number):
            first, second = frames(2, *size, seed=i)
            Image.fromarray(first).save(f"{data}/{i:05d}{ends[0]}")
            Image.fromarray(second).save(f"{data}/{i:05d}{ends[1]}")
            write_flo(f"{data}/{i:05d}{ends[2]}", np.full((*size, 2), (i, -i), np.float32))
        return tmp_path / folder

    return chairs
