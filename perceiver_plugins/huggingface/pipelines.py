"""Pipelines for optical flow and multimodal autoencoding, which ``transformers`` lacks.

The plugins of these tasks are imported when a pipeline is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate
from transformers import AutoModel, Pipeline, pipelines
from transformers.image_utils import load_image
from transformers.pipelines import PIPELINE_REGISTRY


class _OwnPipeline(Pipeline):
    """Pipeline without a processor."""

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    tag: ClassVar[str]
    """Name of the pipeline."""

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if parameters:
            raise TypeError(f"{self.tag} has no parameter {min(parameters)!r}")
        return {}, {}, {}


class OpticalFlowPipeline(_OwnPipeline):
    """Motion of each pixel from one frame to the next, for frames of any size.

    ``pipeline("optical-flow", model=...)((first, second))`` takes a pair of images, files or URLs, or a list of pairs.
    The result is ``{"flow": (height, width, 2)}``, a numpy array of the motion to the right and down in pixels.
    """

    tag = "optical-flow"

    def preprocess(self, input_: Any, **_: Any) -> dict[str, Any]:
        from perceiver_plugins.flow.data.pairs import frames_tensor

        first, second = (np.asarray(load_image(image).convert("RGB")) for image in input_)
        if first.shape != second.shape:
            sizes = " and ".join(f"{height}x{width}" for height, width, _ in (first.shape, second.shape))
            raise ValueError(f"optical flow needs two frames of the same size, got {sizes} pixels")
        return {"frames": frames_tensor(first, second)}

    def _forward(self, input_tensors: dict[str, Any], **_: Any) -> Any:
        from perceiver_plugins.flow.tiling import predict_tiled_flow

        model: Any = self.model.perceiver
        config: Any = self.model.config
        frames: Tensor = input_tensors["frames"]
        height, width = frames.shape[2:]
        # Frames are downscaled as in training, and the flow is enlarged accordingly.
        factor = config.description.data.get("downscale", 1)
        small = avg_pool2d(frames, factor, ceil_mode=True)
        flow = predict_tiled_flow(self._flow_of_tiles, small, tuple(model.config.encoder.image_size))
        flow = flow * model.config.decoder.flow_scale_factor * factor
        if factor > 1:
            flow = interpolate(flow[None], scale_factor=factor, mode="bilinear")[0]
        return {"flow": flow[:, :height, :width]}

    def _flow_of_tiles(self, frames: Tensor) -> Tensor:
        model: Any = self.model.perceiver
        flow = model({"frames": frames})
        return flow.transpose(1, 2).unflatten(2, frames.shape[3:])

    def postprocess(self, model_outputs: dict[str, Tensor], **_: Any) -> dict[str, np.ndarray]:
        return {"flow": model_outputs["flow"].permute(1, 2, 0).float().numpy()}


class MultimodalAutoencodingPipeline(_OwnPipeline):
    """Reconstruction and classification of a video clip with audio.

    ``pipeline("multimodal-autoencoding", model=...)`` takes a video file, of which it reads the middle, or a clip
    ``{"frames": (frames, height, width, 3), "samples": (samples)}`` of numpy arrays: uint8, and floating point from -1
    to 1. The result has ``frames`` and ``samples`` of the same types, and ``classes``, a list of ``label`` and
    ``score``, most probable first.
    """

    tag = "multimodal-autoencoding"

    def preprocess(self, input_: Any, **_: Any) -> dict[str, Any]:
        from perceiver_plugins.multimodal.data.format import Clip, ClipFormat, to_batch

        if isinstance(input_, str | Path):
            from perceiver_plugins.multimodal.data.files import read_clip

            config: Any = self.model.config
            clip = read_clip(input_, ClipFormat.from_description(config.description.data))
        else:
            frames = torch.as_tensor(np.ascontiguousarray(input_["frames"])).permute(0, 3, 1, 2)
            clip = Clip(frames, torch.as_tensor(np.asarray(input_["samples"], np.float32)))
        return to_batch([clip])

    def _forward(self, input_tensors: dict[str, Any], **_: Any) -> Any:
        from perceiver_plugins.multimodal.decoding import reconstruct

        model: Any = self.model.perceiver
        return reconstruct(model, input_tensors)._asdict()

    def postprocess(self, model_outputs: dict[str, Tensor], **_: Any) -> dict[str, Any]:
        from perceiver_plugins.multimodal.data.format import from_batch

        clip: Any = from_batch(model_outputs["pixel_values_videos"], model_outputs["input_values"])[0]
        config: Any = self.model.config
        scores = model_outputs["logits"][0].float().softmax(dim=-1)
        ranked = scores.argsort(descending=True).tolist()
        return {
            "frames": clip.frames.permute(0, 2, 3, 1).numpy(),
            "samples": clip.samples.numpy(),
            "classes": [{"label": config.id2label[number], "score": float(scores[number])} for number in ranked],
        }


OWN_PIPELINES: tuple[tuple[type[_OwnPipeline], str], ...] = (
    (OpticalFlowPipeline, "image"),
    (MultimodalAutoencodingPipeline, "multimodal"),
)
"""Pipelines of the zoo, each with its ``type`` in the registry of transformers."""


def register_pipelines() -> None:
    """Register the zoo's pipelines. Idempotent."""
    for pipeline, kind in OWN_PIPELINES:
        if pipeline.tag not in PIPELINE_REGISTRY.supported_tasks:
            PIPELINE_REGISTRY.register_pipeline(pipeline.tag, pipeline_class=pipeline, pt_model=AutoModel, type=kind)
        # In transformers 4, these sets replace the class attributes of a pipeline without processors.
        for name in ("NO_TOKENIZER_TASKS", "NO_IMAGE_PROCESSOR_TASKS", "NO_FEATURE_EXTRACTOR_TASKS"):
            _add_task(name, pipeline.tag)
    # transformers 4 would load an image processor for the features of texts, since ZooConfig has one registered.
    for name in ("NO_IMAGE_PROCESSOR_TASKS", "NO_FEATURE_EXTRACTOR_TASKS"):
        _add_task(name, "feature-extraction")


def _add_task(name: str, tag: str) -> None:
    tasks: set[str] = getattr(pipelines, name, set())
    tasks.add(tag)
