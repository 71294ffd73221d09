"""Specs of this package. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, DataSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="spectrogram",
            kind="input",
            adapter="perceiver_spectrogram.adapter:SpectrogramInputAdapter",
            config="perceiver_spectrogram.adapter:SpectrogramEncoderConfig",
            summary="sound as frames of a log-mel spectrogram",
            links={"sample_rate": "sample_rate"},
            reads=("input_values", "attention_mask"),
            reader="perceiver_spectrogram.reading:SpectrogramReader",
            data_options=("sample_rate",),
            example={"model.encoder.num_mel_bands": 8, "model.encoder.num_time_bands": 4},
        )
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="spoken-digits",
            module="perceiver_spectrogram.data:SpokenDigitsDataModule",
            tasks=("classification",),
            summary="recordings of spoken digits or other words: 7_jackson_32.wav, ...",
            yields=("input_values", "attention_mask"),
            defaults={
                "model.encoder": "spectrogram",
                "task.label_smoothing": 0.1,
                "task.ema_decay": 0.99,
                "trainer.max_epochs": 30,
            },
        )
    ]
