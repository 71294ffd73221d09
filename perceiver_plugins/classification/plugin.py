"""Specs of classification and regression of any input. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.classification"


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="classification",
            kind="output",
            adapter=f"{PLUGIN}.adapters:ClassificationOutputAdapter",
            config=f"{PLUGIN}.config:ClassificationDecoderConfig",
            summary="the class of the whole input, decoded with learned queries",
            links={name: name for name in ("num_classes", "label_names", "multi_label")},
            tasks=("classification", "image-classification", "text-classification"),
            example={"model.decoder.num_classes": 3, "model.decoder.num_output_query_channels": 16},
        ),
        AdapterSpec(
            name="token-classification",
            kind="output",
            adapter=f"{PLUGIN}.adapters:TokenClassificationOutputAdapter",
            config=f"{PLUGIN}.config:TokenClassificationDecoderConfig",
            summary="the class of each input position, decoded with the input as queries",
            links={"num_classes": "num_classes", "label_names": "label_names"},
            tasks=("token-classification",),
            example={"model.decoder.num_classes": 3},
        ),
        AdapterSpec(
            name="regression",
            kind="output",
            adapter=f"{PLUGIN}.adapters:RegressionOutputAdapter",
            config=f"{PLUGIN}.config:RegressionDecoderConfig",
            summary="numbers, scaled by the statistics of the training data",
            links={name: name for name in ("num_targets", "target_names", "target_mean", "target_std")},
            tasks=("regression",),
            example={"model.decoder.num_targets": 2, "model.decoder.num_output_query_channels": 16},
        ),
    ]


SMALL_ENCODER = {
    "model.encoder.num_cross_attention_heads": 1,
    "model.encoder.num_self_attention_heads": 4,
    "model.encoder.num_self_attention_layers_per_block": 3,
    "model.num_latents": 32,
    "model.num_latent_channels": 128,
}
"""Options of an encoder small enough to train on a CPU with any input."""

TRAINING_DEFAULTS = {
    "optimizer": "AdamW",
    "optimizer.lr": 1e-3,
    "lr_scheduler": "CosineWithWarmup",
    "lr_scheduler.warmup_steps": 100,
    "trainer.max_epochs": 20,
    "trainer.gradient_clip_val": 1.0,
}
"""Options of training that all tasks share."""


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="classification",
            module=f"{PLUGIN}.lightning:LitClassifier",
            summary="predict the class, or any number of classes, of any input (--model.encoder=NAME)",
            data="digits",
            defaults={
                "data.target": "class",
                "model.encoder": "image-patches",
                **SMALL_ENCODER,
                "model.decoder": "classification",
                "model.decoder.num_output_query_channels": 128,
                "model.decoder.num_cross_attention_heads": 1,
                "model.decoder.init_scale": 0.1,
                **TRAINING_DEFAULTS,
            },
            predictor=f"{PLUGIN}.prediction:ClassPredictor",
        ),
        TaskSpec(
            name="token-classification",
            module=f"{PLUGIN}.lightning:LitTokenClassifier",
            summary="predict the class of each token of a text, or of each position of any other input",
            data="python-code",
            defaults={
                "data.target": "token",
                "model.encoder": "text",
                "model.encoder.num_input_channels": 128,
                **SMALL_ENCODER,
                "model.init": "local",
                "model.decoder": "token-classification",
                **TRAINING_DEFAULTS,
            },
            predictor=f"{PLUGIN}.prediction:TokenPredictor",
        ),
        TaskSpec(
            name="regression",
            module=f"{PLUGIN}.regression:LitRegressor",
            summary="predict numbers from any input (--model.encoder=NAME)",
            data="diabetes",
            defaults={
                "data.target": "number",
                "model.encoder": "table",
                **SMALL_ENCODER,
                "model.decoder": "regression",
                "model.decoder.num_output_query_channels": 128,
                "model.decoder.num_cross_attention_heads": 1,
                "model.decoder.init_scale": 0.1,
                **TRAINING_DEFAULTS,
            },
            predictor=f"{PLUGIN}.prediction:NumberPredictor",
        ),
    ]
