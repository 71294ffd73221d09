"""Specs of the arrays plugin. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, DataSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.arrays"

MODEL = {
    "model.num_latents": 16,
    "model.num_latent_channels": 128,
    "model.encoder.num_cross_attention_heads": 1,
    "model.encoder.num_self_attention_heads": 4,
    "model.encoder.num_self_attention_layers_per_block": 2,
    "model.decoder.num_output_query_channels": 128,
    "model.decoder.num_cross_attention_heads": 4,
    "model.decoder.pool_inputs": True,
    "optimizer.lr": 2e-3,
}
"""Small model of the defaults, and its learning rate. Arbitrary."""


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="features",
            kind="input",
            adapter=f"{PLUGIN}.adapters:FeaturesInputAdapter",
            config=f"{PLUGIN}.config:FeaturesEncoderConfig",
            summary="sequences or sets of precomputed feature vectors",
            links={"num_features": "num_features", "max_positions": "max_positions"},
            reads=("features", "attention_mask"),
            reader=f"{PLUGIN}.reading:ArrayReader",
            data_options=("max_vectors",),
            example={"model.encoder.num_features": 5, "model.encoder.num_frequency_bands": 4},
        ),
        AdapterSpec(
            name="points",
            kind="input",
            adapter=f"{PLUGIN}.adapters:PointsInputAdapter",
            config=f"{PLUGIN}.config:PointsEncoderConfig",
            summary="point clouds with features of each point, without a grid",
            links={"num_coordinates": "num_coordinates", "num_features": "num_features"},
            reads=("coordinates", "attention_mask"),
            reader=f"{PLUGIN}.reading:ArrayReader",
            data_options=("max_vectors", "num_coordinates"),
            example={"model.encoder.num_features": 2, "model.encoder.num_frequency_bands": 3},
        ),
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    return [
        DataSpec(
            name="shapes",
            module=f"{PLUGIN}.shapes:ShapesDataModule",
            tasks=("classification",),
            summary="synthetic point clouds of eight shapes",
            yields=("coordinates", "attention_mask"),
            defaults={**MODEL, "model.encoder": "points", "trainer.max_epochs": 30},
            example={"num_examples": 16, "num_points": 20, "batch_size": 4},
        ),
        DataSpec(
            name="digit-rows",
            module=f"{PLUGIN}.digits:DigitRowsDataModule",
            tasks=("classification",),
            summary="rows of scikit-learn's handwritten digits: 1,797 sequences of 8 feature vectors",
            yields=("features", "attention_mask"),
            defaults={**MODEL, "model.encoder": "features", "trainer.max_epochs": 30},
            example={"batch_size": 4},
        ),
        DataSpec(
            name="points-folder",
            module=f"{PLUGIN}.folders:PointsFolderDataModule",
            tasks=("classification",),
            summary="your own point clouds (.npy, .xyz, ...): a folder or zip archive with a folder for each class",
            yields=("coordinates", "attention_mask"),
            defaults={**MODEL, "model.encoder": "points"},
        ),
        DataSpec(
            name="feature-folder",
            module=f"{PLUGIN}.folders:FeatureFolderDataModule",
            tasks=("classification",),
            summary="your own feature vectors (.npy, ...): a folder or zip archive with a folder for each class",
            yields=("features", "attention_mask"),
            defaults={**MODEL, "model.encoder": "features"},
        ),
        DataSpec(
            name="feature-files",
            module=f"{PLUGIN}.tables:FeatureFilesDataModule",
            tasks=("classification",),
            summary="your own feature vectors in columns of .parquet or .jsonl files",
            yields=("features", "attention_mask"),
            defaults={**MODEL, "model.encoder": "features"},
        ),
    ]
