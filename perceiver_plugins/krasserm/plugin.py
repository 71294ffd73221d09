"""Specs of the plugin for krasserm/perceiver-io. Does not import torch."""

from __future__ import annotations

from perceiver_registry import FormatSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"


@hookimpl
def perceiver_formats() -> list[FormatSpec]:
    return [
        FormatSpec(
            name="krasserm",
            format="perceiver_plugins.krasserm.format:KrassermFormat",
            summary="models of krasserm/perceiver-io: folders, hub ids and training checkpoints",
            reads=True,
        )
    ]
