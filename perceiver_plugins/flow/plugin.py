"""Specs of the optical flow plugin. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, DataSpec, ModelSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"
PLUGIN = "perceiver_plugins.flow"
TASK = "optical-flow"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="flow-patches",
            kind="input",
            adapter=f"{PLUGIN}.adapters:FlowPatchesInputAdapter",
            config=f"{PLUGIN}.config:FlowPatchesEncoderConfig",
            summary="patches around each pixel of two frames of any height and width, with Fourier positions",
            links={"image_size": "image_size"},
            reads=("frames",),
            reader=f"{PLUGIN}.reading:FrameReader",
            data_options=("image_size",),
            example={
                "model.encoder.image_size": [6, 8],
                "model.encoder.num_patch_channels": 8,
                "model.encoder.num_frequency_bands": 3,
            },
        ),
        AdapterSpec(
            name=TASK,
            kind="output",
            adapter=f"{PLUGIN}.adapters:OpticalFlowOutputAdapter",
            config=f"{PLUGIN}.config:OpticalFlowDecoderConfig",
            summary="optical flow at each input position, with the adapted input as queries",
            tasks=(TASK,),
            example={"model.decoder.rescale_factor": 1.0},
        ),
    ]


SMALL_MODEL = {
    "encoder": "flow-patches",
    "encoder.num_cross_attention_heads": 1,
    "encoder.num_self_attention_heads": 4,
    "encoder.num_self_attention_layers_per_block": 4,
    "encoder.num_frequency_bands": 16,
    "encoder.init_scale": 0.1,
    "num_latents": 128,
    "num_latent_channels": 128,
    "decoder": TASK,
    "decoder.num_cross_attention_heads": 1,
    "decoder.num_cross_attention_qk_channels": 128,
    "decoder.rescale_factor": 1.0,
}
"""Options of a model small enough to train on a CPU."""


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name=TASK,
            module=f"{PLUGIN}.lightning:LitOpticalFlow",
            summary="predict the motion of each pixel from one frame to the next",
            data="stereo-pair",
            reads=("frames",),
            defaults={
                **{f"model.{field}": value for field, value in SMALL_MODEL.items()},
                "optimizer": "AdamW",
                "optimizer.lr": 3e-3,
                "lr_scheduler": "CosineWithWarmup",
                "lr_scheduler.warmup_steps": 100,
                "trainer.max_epochs": 8,
                "trainer.gradient_clip_val": 1.0,
                "task.num_places": 480,
            },
            predictor=f"{PLUGIN}.prediction:FlowPredictor",
            published="optical-flow-perceiver",
        )
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    modules = {
        "stereo-pair": (
            "StereoPairDataModule",
            "scikit-image's stereo photographs of a motorcycle, with the true disparity",
        ),
        "flying-chairs": ("FlyingChairsDataModule", "FlyingChairs, or your own pairs of frames with their .flo files"),
        "sintel": ("SintelDataModule", "MPI Sintel, or your own scenes of frames with their .flo files"),
        "kitti": ("KittiDataModule", "KITTI 2012 or 2015, or your own pairs of frames with flow as 16-bit PNG"),
    }
    stereo = {
        "data.batch_size": 8,
        "data.valid_batch_size": 8,
        "data.downscale": 4,
        "data.image_size": [40, 48],
        "data.crops_per_pair": 1600,
        "data.random_shift": 1,
        "data.vflip": 0.5,
    }
    larger = {"data.downscale": 4, "data.image_size": [80, 96], "data.valid_batch_size": 8}
    defaults = {"stereo-pair": stereo, "flying-chairs": larger, "sintel": larger, "kitti": larger}
    return [
        DataSpec(
            name=name,
            module=f"{PLUGIN}.data:{module}",
            tasks=(TASK,),
            summary=summary,
            yields=("frames",),
            defaults=defaults.get(name, {}),
            path_option=None if name == "stereo-pair" else "path",
            path_suffixes=("/", ".zip"),
        )
        for name, (module, summary) in modules.items()
    ]


@hookimpl
def perceiver_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="optical-flow-perceiver",
            task=TASK,
            config={
                "encoder": "flow-patches",
                "encoder.patch_size": 3,
                "encoder.num_patch_channels": 64,
                "encoder.num_frequency_bands": 64,
                "encoder.image_size": [368, 496],
                "encoder.num_cross_attention_heads": 1,
                "encoder.num_cross_attention_qk_channels": 322,
                "encoder.num_cross_attention_v_channels": 322,
                "encoder.num_self_attention_heads": 16,
                "encoder.num_self_attention_qk_channels": 512,
                "encoder.num_self_attention_v_channels": 512,
                "encoder.num_self_attention_layers_per_block": 24,
                "encoder.num_self_attention_blocks": 1,
                "encoder.dropout": 0.1,
                "encoder.init_scale": 0.02,
                "decoder": TASK,
                "decoder.num_cross_attention_heads": 1,
                "decoder.num_cross_attention_qk_channels": 512,
                "decoder.num_cross_attention_v_channels": 512,
                "decoder.cross_attention_residual": False,
                "decoder.rescale_factor": 100.0,
                "decoder.flow_scale_factor": 20.0,
                "decoder.dropout": 0.1,
                "decoder.init_scale": 0.02,
                "num_latents": 2048,
                "num_latent_channels": 512,
                "init": "normal",
            },
            num_parameters=41_057_134,
            summary="optical flow model of the Perceiver IO paper",
            params="deepmind/optical-flow-perceiver",
            defaults={
                "data": "flying-chairs",
                "data.image_size": [368, 496],
                "data.downscale": 1,
                "task.num_places": 16384,
                "optimizer.lr": 4e-4,
            },
        ),
        ModelSpec(
            name="small-optical-flow",
            task=TASK,
            config={**SMALL_MODEL, "encoder.image_size": [40, 48], "init": "normal"},
            num_parameters=620_256,
            summary="small optical flow model on small frames, for a CPU",
            defaults={"data": "stereo-pair", "data.image_size": [40, 48]},
        ),
    ]
