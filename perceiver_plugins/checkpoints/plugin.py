"""Specs of the zoo's formats and of random data. Does not import torch."""

from __future__ import annotations

from perceiver_registry import DataSpec, FormatSpec, hookimpl
from perceiver_registry.checkpoint import SUFFIXES
from perceiver_registry.specs import ANY_TASK

PERCEIVER_INTERFACE = "2.0"


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
