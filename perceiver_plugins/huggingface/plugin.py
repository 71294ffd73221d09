"""Specs of the plugin for transformers. Does not import torch."""

from __future__ import annotations

from perceiver_registry import FormatSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"


@hookimpl
def perceiver_formats() -> list[FormatSpec]:
    return [
        FormatSpec(
            name="huggingface",
            format="perceiver_plugins.huggingface.formats:HuggingFaceFormat",
            summary="the layout of transformers' own Perceivers: a folder, or a hub id",
            reads=True,
            writes=True,
        ),
        FormatSpec(
            name="zoo",
            format="perceiver_plugins.huggingface.formats:ZooFormat",
            summary="the zoo's layout for the hub, for models with any adapters: a folder, or a hub id",
            reads=True,
            writes=True,
        ),
    ]
