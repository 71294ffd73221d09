"""Specs of the audio plugin. Does not import torch."""

from __future__ import annotations

from typing import Any

from perceiver_registry import AdapterSpec, DataSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.audio"

ADAPTERS: dict[str, tuple[str, str, dict[str, str], dict[str, Any]]] = {
    "audio-spectrogram": (
        "AudioSpectrogram",
        "frames of a log-mel spectrogram with Fourier positions",
        {"sample_rate": "sample_rate", "max_seconds": "max_seconds"},
        {"sample_rate": 400, "num_mel_bands": 4, "num_frequency_bands": 3, "num_conv_channels": 6},
    ),
    "audio-patches": (
        "AudioPatches",
        "patches of raw audio with Fourier positions",
        {"num_audio_samples": "num_audio_samples"},
        {"num_audio_samples": 24, "samples_per_patch": 4, "num_frequency_bands": 4},
    ),
}
"""For each name: prefix of the class names, summary, links, and options of a small example."""


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name=name,
            kind="input",
            adapter=f"{PLUGIN}.adapters:{prefix}InputAdapter",
            config=f"{PLUGIN}.config:{prefix}EncoderConfig",
            summary=summary,
            links=links,
            reads=("input_values",),  # recordings of one length have no mask
            reader=f"{PLUGIN}.reading:AudioReader",
            data_options=("sample_rate", "max_seconds"),
            example={f"model.encoder.{field}": value for field, value in example.items()},
            size_rule=f"{PLUGIN}.sizing:{name.removeprefix('audio-')}_rule",
            data="tone-patterns",
        )
        for name, (prefix, summary, links, example) in ADAPTERS.items()
    ]


TRAINING: dict[str, Any] = {
    "model.decoder.pool_inputs": True,
    "task.label_smoothing": 0.1,
    "task.ema_decay": 0.99,
    "optimizer.lr": 2e-3,
    "optimizer.weight_decay": 0.05,
    "data.batch_size": 32,
}
"""Options of training that all data modules share."""


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="tone-patterns",
            module=f"{PLUGIN}.data:TonePatternsDataModule",
            tasks=("classification",),
            summary="tones with a rising, falling or other pattern of pitch, synthesised from a seed",
            yields=("input_values", "attention_mask"),
            defaults=TRAINING,
            example={"num_recordings": 8, "batch_size": 4, "sample_rate": 2400},
        ),
        DataSpec(
            name="audio-folder",
            module=f"{PLUGIN}.data:AudioFolderDataModule",
            tasks=("classification",),
            summary="your own recordings: a folder or zip archive with a folder per class",
            yields=("input_values", "attention_mask"),
            defaults=TRAINING | {"data.random_shift_ms": 50},
            path_option="path",
            path_suffixes=("/", ".zip"),
        ),
    ]
