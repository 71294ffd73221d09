"""Fixtures: Hugging Face's model, a small multimodal autoencoder, and folders of clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from perceiver_core import PerceiverConfig
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig, AudioVideoLabelEncoderConfig
from perceiver_plugins.multimodal.data.files import write_clip
from perceiver_plugins.multimodal.data.format import ClipFormat
from perceiver_plugins.multimodal.data.synthetic import SHAPES, draw_clip

HF_BASE = {
    "num_latents": 7,
    "d_latents": 12,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 1,
    "image_size": 6,
    "num_frames": 3,
    "audio_samples_per_frame": 16,
    "samples_per_patch": 4,
    "output_shape": [1, 3, 8, 12],
    "output_num_channels": 9,
    "num_labels": 5,
    "attention_probs_dropout_prob": 0.2,
}


@pytest.fixture(autouse=True)
def _reset_seed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # set first, so that monkeypatch restores them
        monkeypatch.setenv(variable, "0")
        monkeypatch.delenv(variable)


@pytest.fixture
def peer(randomise) -> Callable[..., transformers.PerceiverForMultimodalAutoencoding]:
    """Factory of Hugging Face's model with random parameters and HF_BASE's configuration, optionally changed."""

    def peer(**changes: Any) -> transformers.PerceiverForMultimodalAutoencoding:
        config = transformers.PerceiverConfig(**(HF_BASE | changes))
        return randomise(transformers.PerceiverForMultimodalAutoencoding(config)).eval()

    return peer


@pytest.fixture
def hf_logits() -> Callable[..., dict[str, Tensor]]:
    """Function that decodes with Hugging Face's model, which requires positions of audio and video."""

    def hf_logits(model: Any, batch: dict[str, Tensor], audio: Tensor, image: Tensor) -> dict[str, Tensor]:
        size = len(batch["input_values"])
        inputs = {
            "audio": batch["input_values"][..., None],
            "image": batch["pixel_values_videos"],
            "label": torch.randn(size, model.config.num_labels, dtype=batch["input_values"].dtype),
        }
        positions = {"audio": audio, "image": image, "label": None}
        with torch.no_grad():
            return model(inputs=inputs, subsampled_output_points=positions).logits

    return hf_logits


TINY_CLIP = {
    "num_frames": 2,
    "frame_size": (4, 8),
    "num_audio_samples": 12,
    "samples_per_patch": 3,
    "num_classes": 5,
    "num_audio_frequency_bands": 3,
    "num_video_frequency_bands": 2,
}
TINY_ENCODER = {
    "num_cross_attention_heads": 1,
    "num_self_attention_heads": 2,
    "num_self_attention_layers_per_block": 1,
    "init_scale": 0.3,
}
TINY_DECODER = {"num_label_query_channels": 6, "num_output_channels": 7, "init_scale": 0.3}


@pytest.fixture
def clip_model_config() -> Callable[..., PerceiverConfig]:
    """Factory of the configuration of a small model, optionally changed."""

    def config(
        clip: dict[str, Any] | None = None,
        encoder: dict[str, Any] | None = None,
        decoder: dict[str, Any] | None = None,
        **values: Any,
    ) -> PerceiverConfig:
        shape = TINY_CLIP | (clip or {})
        return PerceiverConfig(
            AudioVideoLabelEncoderConfig(**(shape | TINY_ENCODER | (encoder or {}))),
            AudioVideoLabelDecoderConfig(**(shape | TINY_DECODER | (decoder or {}))),
            **({"num_latents": 4, "num_latent_channels": 10} | values),
        )

    return config


@pytest.fixture
def tiny_batch() -> dict[str, Tensor]:
    """Batch of three clips for the small model."""
    return {
        "input_values": 2 * torch.rand(3, 12) - 1,
        "pixel_values_videos": torch.rand(3, 2, 3, 4, 8),
        "labels": torch.tensor([4, 0, 2]),
    }


@pytest.fixture
def clip_folder(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes the given number of clips of each class, {"circle": 3, ...}, to one folder per class."""

    def clip_folder(
        classes: dict[str, int], clip_format: ClipFormat, folder: Path | None = None, suffix: str = ".mp4"
    ) -> Path:
        folder = folder or tmp_path / "clips"
        for name, number in classes.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            for i in range(number):
                label = SHAPES.index(name)
                clip = draw_clip(label, clip_format, np.random.default_rng([label, i]))
                write_clip(folder / name / f"{i}{suffix}", clip, clip_format, lossless=suffix == ".mkv")
        return folder

    return clip_folder
