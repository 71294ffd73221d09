"""Specs of the plugin for transformers. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, FormatSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.huggingface"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="latents",
            kind="output",
            adapter=f"{PLUGIN}.latents:LatentsOutputAdapter",
            config="perceiver_core:LatentsDecoderConfig",
            summary="the latents, for encoders without a decoder such as transformers' PerceiverModel",
            tasks=("embedding",),
            example={"model.decoder.num_latents": 4},
        )
    ]


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="embedding",
            module=f"{PLUGIN}.latents:LitEmbedder",
            summary="embed inputs with an encoder without a decoder, for perceiver embed only",
            data=None,
        )
    ]


@hookimpl
def perceiver_formats() -> list[FormatSpec]:
    return [
        FormatSpec(
            name="huggingface",
            format=f"{PLUGIN}.formats:HuggingFaceFormat",
            summary="the layout of transformers' own Perceivers: a folder, or a hub id",
            reads=True,
            writes=True,
        ),
        FormatSpec(
            name="zoo",
            format=f"{PLUGIN}.formats:ZooFormat",
            summary="the zoo's layout for the hub, for models with any adapters: a folder, or a hub id",
            reads=True,
            writes=True,
        ),
    ]
