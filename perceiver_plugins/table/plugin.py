"""Specs of the table plugin. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, DataSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.table"

KIND_OPTIONS = ("categorical_columns", "numeric_columns", "date_columns", "text_columns", "image_columns")
"""Options of data modules that determine the kinds of columns."""


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="table",
            kind="input",
            adapter=f"{PLUGIN}.adapters:TableInputAdapter",
            config=f"{PLUGIN}.config:TableEncoderConfig",
            summary="columns of numbers, categories, texts and images, which may be missing",
            links={"num_features": "num_features", "num_categories": "num_categories", "columns": "column_inputs"},
            reads=("inputs",),
            reader=f"{PLUGIN}.reading:TableReader",
            data_options=("feature_columns", "scaling", *KIND_OPTIONS),
            example={
                "model.encoder.num_features": 5,
                "model.encoder.num_input_channels": 16,
                "model.encoder.num_categories": [3, 2],
            },
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
            summary="your own .csv, .tsv, .jsonl or .parquet files with numbers, categories, dates, texts and images",
            yields=("inputs",),
            defaults={"model.encoder": "table"},
            path_option="train_files",
            path_suffixes=(".csv", ".tsv", ".jsonl", ".parquet"),
        ),
    ]
