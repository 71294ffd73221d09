"""Specs of the table plugin. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, DataSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"

PLUGIN = "perceiver_plugins.table"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="table",
            kind="input",
            adapter=f"{PLUGIN}.adapters:TableInputAdapter",
            config=f"{PLUGIN}.config:TableEncoderConfig",
            summary="numeric columns, in which numbers may be missing",
            links={"num_features": "num_features"},
            reads=("inputs",),
            reader=f"{PLUGIN}.reading:TableReader",
            data_options=("feature_columns",),
            example={"model.encoder.num_features": 5, "model.encoder.num_input_channels": 16},
            size_rule=f"{PLUGIN}.sizing:size_rule",
        )
    ]


SMALL_MODEL = {
    "model.encoder": "table",
    "model.encoder.num_input_channels": 64,
    "model.encoder.num_cross_attention_heads": 1,
    "model.encoder.num_self_attention_heads": 4,
    "model.encoder.num_self_attention_layers_per_block": 1,
    "model.decoder.num_output_query_channels": 64,
    "model.num_latents": 16,
    "model.num_latent_channels": 64,
    "lr_scheduler.warmup_steps": 20,
}
"""Defaults for tables, which usually have few rows: a larger model overfits, and an epoch has few steps for warm-up."""


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="diabetes",
            module=f"{PLUGIN}.data:DiabetesDataModule",
            tasks=("regression",),
            summary="progression of diabetes in 442 patients, from ten measurements (part of scikit-learn)",
            yields=("inputs",),
            defaults=SMALL_MODEL | {"trainer.max_epochs": 20},
            example={"batch_size": 8},
        ),
        DataSpec(
            name="table-files",
            module=f"{PLUGIN}.files:TableFilesDataModule",
            tasks=("classification", "regression"),
            summary="your own .csv, .tsv, .jsonl or .parquet files with numeric columns",
            yields=("inputs",),
            defaults=SMALL_MODEL,
        ),
    ]
