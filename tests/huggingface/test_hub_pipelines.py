"""The zoo's pipelines, in another process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from perceiver_core import PerceiverConfig
from perceiver_plugins.flow.config import FlowPatchesEncoderConfig, OpticalFlowDecoderConfig
from perceiver_plugins.flow.lightning import LitOpticalFlow
from perceiver_plugins.flow.prediction import FlowPredictor
from perceiver_plugins.flow.reading import FrameReader
from perceiver_plugins.huggingface import ZooConfig, ZooModel
from perceiver_plugins.huggingface.model_card import Run, model_card
from perceiver_plugins.huggingface.pipelines import OpticalFlowPipeline
from perceiver_plugins.multimodal.config import AudioVideoLabelDecoderConfig, AudioVideoLabelEncoderConfig
from perceiver_plugins.multimodal.data.files import write_clip
from perceiver_plugins.multimodal.data.format import Clip, ClipFormat
from perceiver_plugins.multimodal.reading import ClipReader
from perceiver_registry import ModelDescription

HEADS = {"num_self_attention_heads": 2, "num_self_attention_layers_per_block": 1, "num_cross_attention_heads": 1}
CLIP: dict[str, Any] = {"num_frames": 2, "frame_size": (8, 4), "num_audio_samples": 320, "num_classes": 3}
FORMAT = ClipFormat(num_frames=2, frame_size=(8, 4), frame_rate=25, samples_per_frame=160)


def save(config: PerceiverConfig, task: str, data: dict[str, Any], randomise: Any, folder: Path) -> ZooModel:
    """Save a model with random weights."""
    zoo_config = ZooConfig.from_description(ModelDescription.create(task, config, data))
    model: ZooModel = randomise(ZooModel(zoo_config)).eval()
    model.save_pretrained(folder)
    return model


Randomise = Callable[[nn.Module], nn.Module]


def test_optical_flow(other_process: Any, randomise: Randomise, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    config = PerceiverConfig(
        FlowPatchesEncoderConfig(num_patch_channels=6, num_frequency_bands=2, image_size=(7, 9), **HEADS),
        OpticalFlowDecoderConfig(rescale_factor=2.0, flow_scale_factor=5.0),
        num_latents=5,
        num_latent_channels=12,
    )
    data = {"image_size": [7, 9], "downscale": 2}
    model = save(config, "optical-flow", data, randomise, tmp_path / "flow")
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for file in files:
        Image.fromarray(chance.integers(256, size=(21, 25, 3), dtype=np.uint8)).save(file)
    name, [answer] = other_process.run("optical-flow", tmp_path / "flow", [[*map(str, files)]])
    assert name == "ZooModel"

    module = LitOpticalFlow.create(config).eval()
    module.model.load_state_dict(model.perceiver.state_dict())
    reader = FrameReader(data, module.model.input_adapter)  # type: ignore[arg-type]
    [pair] = reader.expand([*map(str, files)])
    expected = FlowPredictor(module, reader).flow(reader.read(pair)).permute(1, 2, 0).numpy()
    assert expected.shape == (21, 25, 2)
    np.testing.assert_allclose(answer["flow"], expected, rtol=1e-5, atol=1e-6)
    assert expected.std() > 0.01
    assert 'pipeline("optical-flow", model="me/flow")' in model_card(model, Run(), "me/flow").text


def test_frames_must_have_the_same_size() -> None:
    with pytest.raises(ValueError, match="of the same size, got 5x4 and 4x5 pixels"):
        OpticalFlowPipeline.preprocess(cast(Any, None), (Image.new("RGB", (4, 5)), Image.new("RGB", (5, 4))))


def test_multimodal_autoencoding(other_process: Any, randomise: Randomise, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    bands = {"num_audio_frequency_bands": 4, "num_video_frequency_bands": 2}
    config = PerceiverConfig(
        AudioVideoLabelEncoderConfig(**CLIP, **bands, **HEADS),
        AudioVideoLabelDecoderConfig(
            **CLIP, **bands, num_label_query_channels=14, num_output_channels=16, label_names=["cat", "dog", "cow"]
        ),
        num_latents=5,
        num_latent_channels=12,
    )
    model = save(config, "multimodal-autoencoding", FORMAT.description(), randomise, tmp_path / "clips")
    frames = torch.from_numpy(chance.integers(256, size=(2, 3, 8, 4), dtype=np.uint8))
    clip = Clip(frames, torch.linspace(-0.5, 0.5, 320))
    write_clip(tmp_path / "clip.mkv", clip, FORMAT, lossless=True)
    name, [answer] = other_process.run("multimodal-autoencoding", tmp_path / "clips", [str(tmp_path / "clip.mkv")])
    assert name == "ZooModel"

    reader = ClipReader(FORMAT.description(), model.perceiver.input_adapter)
    batch = reader.collate([reader.read(str(tmp_path / "clip.mkv"))])
    with torch.no_grad():
        output = model(**batch).output[0]
    adapter: Any = model.perceiver.output_adapter
    modalities = {name: output[adapter.slices[name], adapter.channels[name]] for name in ("audio", "image", "label")}
    scores, numbers = modalities["label"][0].softmax(dim=-1).sort(descending=True)
    np.testing.assert_allclose([each["score"] for each in answer["classes"]], scores, atol=1e-6)
    labels = [["cat", "dog", "cow"][number] for number in numbers]
    assert [each["label"] for each in answer["classes"]] == labels
    np.testing.assert_allclose(answer["samples"], modalities["audio"].flatten().clamp(-1, 1), atol=1e-6)
    pixels = modalities["image"].reshape(2, 8, 4, 3).clamp(0, 1) * 255
    np.testing.assert_allclose(answer["frames"], pixels, atol=0.501)
