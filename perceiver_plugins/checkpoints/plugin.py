"""Specs of the default architecture, the zoo's formats and random data. Does not import torch."""

from __future__ import annotations

from perceiver_registry import ArchitectureSpec, DataSpec, FormatSpec, hookimpl
from perceiver_registry.checkpoint import SUFFIXES
from perceiver_registry.specs import ANY_TASK

PERCEIVER_INTERFACE = "2.2"


@hookimpl
def perceiver_architectures() -> list[ArchitectureSpec]:
    return [
        ArchitectureSpec(
            name="perceiver-io",
            model="perceiver_core:PerceiverIO",
            config="perceiver_core:PerceiverConfig",
            summary="encoder and decoder around one latent array (arXiv 2107.14795)",
            example={"model.num_latents": 4, "model.num_latent_channels": 16},
        )
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="random",
            module="perceiver_plugins.checkpoints.random_data:RandomDataModule",
            tasks=(ANY_TASK,),
            summary="random inputs and labels for any model, to test an adapter or measure speed",
            defaults={"trainer.max_epochs": 10},
        )
    ]


@hookimpl
def perceiver_formats() -> list[FormatSpec]:
    return [
        FormatSpec(
            name="checkpoint",
            format="perceiver_plugins.checkpoints.formats:CheckpointFormat",
            summary="a self-describing checkpoint: weights, configuration, task, data",
            reads=True,
            writes=True,
            suffixes=SUFFIXES,
        ),
        FormatSpec(
            name="safetensors",
            format="perceiver_plugins.checkpoints.formats:SafetensorsFormat",
            summary="weights; with a description of the model if written by this project",
            reads=True,
            writes=True,
            suffixes=(".safetensors",),
        ),
    ]
