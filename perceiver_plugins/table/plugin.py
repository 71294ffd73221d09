"""Specs of the table plugin. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, DataSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

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


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="diabetes",
            module=f"{PLUGIN}.data:DiabetesDataModule",
            tasks=("regression",),
            summary="progression of diabetes in 442 patients, from ten measurements (part of scikit-learn)",
            yields=("inputs",),
            defaults={"model.encoder": "table"},
            example={"batch_size": 8},
        ),
        DataSpec(
            name="table-files",
            module=f"{PLUGIN}.files:TableFilesDataModule",
            tasks=("classification", "regression"),
            summary="your own .csv, .tsv, .jsonl or .parquet files with numeric columns",
            yields=("inputs",),
            defaults={"model.encoder": "table"},
            path_option="train_files",
            path_suffixes=(".csv", ".tsv", ".jsonl", ".parquet"),
        ),
    ]
