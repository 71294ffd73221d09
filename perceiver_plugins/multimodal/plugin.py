"""Specs of the multimodal plugin. Does not import torch."""

from __future__ import annotations

from typing import Any

from perceiver_registry import AdapterSpec, DataSpec, ModelSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.multimodal"

TASK = "multimodal-autoencoding"

CLIP_LINKS = {name: name for name in ("num_frames", "frame_size", "num_audio_samples", "num_classes")}

CLIP_OPTIONS = ("num_frames", "frame_size", "frame_rate", "samples_per_frame")

TINY_CLIP = {
    "num_frames": 2,
    "frame_size": [8, 4],
    "num_audio_samples": 24,
    "samples_per_patch": 8,
    "num_classes": 3,
    "num_audio_frequency_bands": 4,
    "num_video_frequency_bands": 2,
}


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="audio-video-label",
            kind="input",
            adapter=f"{PLUGIN}.adapters:AudioVideoLabelInputAdapter",
            config=f"{PLUGIN}.config:AudioVideoLabelEncoderConfig",
            summary="audio, video and a label as one input, distinguished by modality embeddings",
            links=CLIP_LINKS,
            reads=("input_values", "pixel_values_videos"),
            reader=f"{PLUGIN}.reading:ClipReader",
            data_options=CLIP_OPTIONS,
            example={f"model.encoder.{name}": value for name, value in TINY_CLIP.items()},
        ),
        AdapterSpec(
            name="video-patches",
            kind="input",
            adapter=f"{PLUGIN}.adapters:VideoPatchesInputAdapter",
            config=f"{PLUGIN}.config:VideoPatchesEncoderConfig",
            summary="patches of video with Fourier positions in time and space",
            links={"num_frames": "num_frames", "frame_size": "frame_size"},
            reads=("pixel_values_videos",),
            reader=f"{PLUGIN}.reading:ClipReader",
            data_options=CLIP_OPTIONS,
            example={
                "model.encoder.num_frames": 2,
                "model.encoder.frame_size": [4, 6],
                "model.encoder.patch_size": [1, 2, 2],
                "model.encoder.num_frequency_bands": 2,
            },
        ),
        AdapterSpec(
            name="audio-video-label",
            kind="output",
            adapter=f"{PLUGIN}.output:AudioVideoLabelOutputAdapter",
            config=f"{PLUGIN}.config:AudioVideoLabelDecoderConfig",
            summary="patches of audio, pixels of a video and a label, all of them or a selection",
            links=CLIP_LINKS | {"label_names": "label_names"},
            tasks=(TASK,),
            example={
                **{f"model.decoder.{name}": value for name, value in TINY_CLIP.items()},
                "model.decoder.num_label_query_channels": 14,
                "model.decoder.num_output_channels": 16,
            },
        ),
    ]


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name=TASK,
            module=f"{PLUGIN}.lightning:LitMultimodalAutoencoder",
            summary="reconstruct video with audio from a few latents, and predict its class",
            data="synthetic-clips",
            reads=("input_values", "pixel_values_videos"),
            defaults={
                "model.encoder": "audio-video-label",
                "model.encoder.num_audio_frequency_bands": 32,
                "model.encoder.num_video_frequency_bands": 8,
                "model.encoder.num_cross_attention_heads": 1,
                "model.encoder.num_self_attention_heads": 4,
                "model.encoder.num_self_attention_layers_per_block": 3,
                "model.encoder.init_scale": 0.1,
                "model.num_latents": 64,
                "model.num_latent_channels": 128,
                "model.decoder": "audio-video-label",
                "model.decoder.num_audio_frequency_bands": 32,
                "model.decoder.num_video_frequency_bands": 8,
                "model.decoder.num_label_query_channels": 64,
                "model.decoder.num_output_channels": 64,
                "model.decoder.init_scale": 0.1,
                "optimizer": "AdamW",
                "optimizer.lr": 2e-3,
                "lr_scheduler": "CosineWithWarmup",
                "lr_scheduler.warmup_steps": 100,
                "trainer.max_epochs": 30,
                "trainer.gradient_clip_val": 1.0,
            },
            predictor=f"{PLUGIN}.prediction:ClipPredictor",
            published="multimodal-perceiver",
        )
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    modules = {
        "synthetic-clips": ("SyntheticClipsDataModule", "moving shapes with a tone each, generated from a seed"),
        "video-folder": ("VideoFolderDataModule", "your own video files with audio, in a folder for each class"),
    }
    defaults: dict[str, dict[str, Any]] = {
        # Most pixels are background, which is the median: the absolute error learns the small shapes later.
        "synthetic-clips": {"task.error": "mse", "task.video_weight": 10.0, "task.label_weight": 0.1},
        "video-folder": {},
    }
    return [
        DataSpec(
            name=name,
            module=f"{PLUGIN}.data:{module}",
            tasks=(TASK, "classification"),
            summary=summary,
            yields=("input_values", "pixel_values_videos"),
            defaults=defaults[name],
            example={"num_clips": 4, "batch_size": 2} if name == "synthetic-clips" else None,
            path_option="path" if name == "video-folder" else None,
            path_suffixes=("/", ".zip"),
        )
        for name, (module, summary) in modules.items()
    ]


CLIP = {
    "num_frames": 16,
    "frame_size": [224, 224],
    "num_audio_samples": 30720,
    "samples_per_patch": 16,
    "num_classes": 700,
    "num_audio_frequency_bands": 192,
    "num_video_frequency_bands": 32,
    "audio_max_resolution": 30720,
    "video_max_resolution": [16, 56, 56],
    "dropout": 0.1,
}
"""Clips of the Perceiver IO paper: 16 frames with 1920 samples of audio each, one of 700 classes."""

SMALL_CLIP = {
    "num_frames": 16,
    "frame_size": [64, 64],
    "num_audio_samples": 10240,
    "samples_per_patch": 32,
    "num_audio_frequency_bands": 64,
    "num_video_frequency_bands": 16,
}
"""Clips small enough to train on a CPU."""


@hookimpl
def perceiver_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="multimodal-perceiver",
            task=TASK,
            config={
                "encoder": "audio-video-label",
                **{f"encoder.{name}": value for name, value in CLIP.items()},
                "encoder.num_cross_attention_heads": 1,
                "encoder.num_cross_attention_qk_channels": 704,
                "encoder.num_cross_attention_v_channels": 704,
                "encoder.num_self_attention_heads": 8,
                "encoder.num_self_attention_qk_channels": 512,
                "encoder.num_self_attention_v_channels": 512,
                "encoder.num_self_attention_layers_per_block": 8,
                "decoder": "audio-video-label",
                **{f"decoder.{name}": value for name, value in CLIP.items()},
                "decoder.num_cross_attention_qk_channels": 512,
                "decoder.num_cross_attention_v_channels": 512,
                "decoder.num_label_query_channels": 1024,
                "decoder.num_output_channels": 512,
                "num_latents": 784,
                "num_latent_channels": 512,
                "init": "normal",
            },
            num_parameters=19_858_855,
            summary="the autoencoder of video, audio and label of the Perceiver IO paper",
            params="deepmind/multimodal-perceiver",
            defaults={
                "data": "video-folder",
                "data.num_frames": 16,
                "data.frame_size": 224,
                "data.frame_rate": 25,
                "data.samples_per_frame": 1920,
                "optimizer.lr": 1e-3,
            },
        ),
        ModelSpec(
            name="small-multimodal-autoencoder",
            task=TASK,
            config={
                "encoder": "audio-video-label",
                **{f"encoder.{name}": value for name, value in SMALL_CLIP.items()},
                "encoder.num_cross_attention_heads": 1,
                "encoder.num_self_attention_heads": 8,
                "encoder.num_self_attention_layers_per_block": 4,
                "encoder.init_scale": 0.1,
                "decoder": "audio-video-label",
                **{f"decoder.{name}": value for name, value in SMALL_CLIP.items()},
                "decoder.num_label_query_channels": 128,
                "decoder.num_output_channels": 128,
                "decoder.init_scale": 0.1,
                "num_latents": 128,
                "num_latent_channels": 256,
                "init": "normal",
            },
            num_parameters=2_125_438,
            summary="video of 64x64 pixels with audio at 16 kHz, small enough for a CPU (parameters with two classes)",
            defaults={
                "data": "video-folder",
                "data.num_frames": 16,
                "data.frame_size": 64,
                "data.frame_rate": 25,
                "data.samples_per_frame": 640,
                "data.batch_size": 8,
            },
        ),
    ]
