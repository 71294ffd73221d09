"""Specs of the image plugin. Does not import torch."""

from __future__ import annotations

from typing import Any

from perceiver_registry import AdapterSpec, DataSpec, ModelSpec, TaskSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"

PLUGIN = "perceiver_plugins.image"

CHANNELS = {"num_channels": "num_channels"}

ADAPTERS: dict[str, tuple[str, str, dict[str, str], dict[str, Any]]] = {
    "image-pixels": (
        "ImagePixels",
        "pixels with Fourier positions, of any height and width",
        {"max_resolution": "image_size"},
        {"max_resolution": [8, 8], "num_frequency_bands": 3},
    ),
    "image-learned": (
        "ImageLearned",
        "1x1 convolution features with learned positions",
        {"image_size": "image_size"},
        {"image_size": [8, 8], "num_conv_channels": 8, "num_position_channels": 8},
    ),
    "image-conv": (
        "ImageConv",
        "a convolutional stem (7x7, batch norm, max-pool) with Fourier positions",
        {},
        {"max_resolution": [4, 4], "num_conv_channels": 8, "num_frequency_bands": 3},
    ),
    "image-stages": (
        "ImageStages",
        "a small residual convolutional network with Fourier positions",
        {},
        {"max_resolution": [4, 4], "num_conv_channels": 8, "num_stages": 2, "num_frequency_bands": 3},
    ),
    "image-patches": (
        "ImagePatches",
        "patches with Fourier positions",
        {},
        {"max_resolution": [4, 4], "patch_size": 2, "num_patch_channels": 8, "num_frequency_bands": 3},
    ),
    "image-timm": (
        "ImageTimm",
        "the feature map of any timm model with Fourier positions",
        {"image_size": "image_size"},
        {"timm_model": "test_resnet", "max_resolution": [2, 2], "num_frequency_bands": 3},
    ),
}
"""For each name: prefix of the class names, summary, links, and options of a small example."""

COLUMN_ADAPTER = "image-stages"
"""Adapter of the images in table columns, which learns from few images."""


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name=name,
            kind="input",
            adapter=f"{PLUGIN}.adapters:{prefix}InputAdapter",
            config=f"{PLUGIN}.config:{prefix}EncoderConfig",
            summary=summary,
            links=CHANNELS | links,
            reads=("pixel_values",),
            reader=f"{PLUGIN}.reading:ImageReader",
            data_options=("image_size", "num_channels", "mean", "std", "crop_pct", "bit_depth"),
            example={f"model.encoder.{field}": value for field, value in (example | {"num_channels": 1}).items()},
            size_rule=f"{PLUGIN}.sizing:size_rule",
            column_readers={"image": f"{PLUGIN}.column:ImageColumn"} if name == COLUMN_ADAPTER else {},
        )
        for name, (prefix, summary, links, example) in ADAPTERS.items()
    ]


@hookimpl
def perceiver_tasks() -> list[TaskSpec]:
    return [
        TaskSpec(
            name="image-classification",
            module="perceiver_plugins.classification.lightning:LitClassifier",
            summary="predict the class of an image",
            data="digits",
            defaults={
                # Measured on CIFAR-10: python -m benchmarks own-data --set cifar10
                "model.encoder": "image-stages",
                "model.encoder.num_conv_channels": 128,
                "model.encoder.num_stages": 3,
                "model.encoder.num_cross_attention_heads": 1,
                "model.encoder.num_self_attention_heads": 4,
                "model.encoder.num_self_attention_layers_per_block": 1,
                "model.encoder.init_scale": 0.1,
                "model.num_latents": 8,
                "model.num_latent_channels": 128,
                "model.decoder": "classification",
                "model.decoder.num_output_query_channels": 128,
                "model.decoder.num_cross_attention_heads": 1,
                "model.decoder.init_scale": 0.1,
                "model.decoder.pool_inputs": True,
                "task.label_smoothing": 0.1,
                "task.ema_decay": 0.99,
                "optimizer": "AdamW",
                "optimizer.lr": 2e-3,
                "optimizer.weight_decay": 0.05,
                "lr_scheduler": "CosineWithWarmup",
                "lr_scheduler.warmup_steps": 100,
                "trainer.max_epochs": 20,
                "trainer.gradient_clip_val": 1.0,
            },
            predictor="perceiver_plugins.classification.prediction:ClassPredictor",
            published="vision-perceiver-conv",
        )
    ]


@hookimpl
def perceiver_data() -> list[DataSpec]:
    modules = {
        "digits": ("DigitsDataModule", "scikit-learn's handwritten digits: 1,797 images of 8x8 pixels"),
        "mnist": ("MNISTDataModule", "MNIST: 70,000 handwritten digits of 28x28 pixels"),
        "fashion-mnist": ("FashionMNISTDataModule", "Fashion-MNIST: 70,000 pieces of clothing of 28x28 pixels"),
        "cifar10": ("CIFAR10DataModule", "CIFAR-10: 60,000 colour images of 32x32 pixels"),
        "imagenet": ("ImageNetDataModule", "ImageNet, from the hub or the usual folder tree"),
        "image-folder": ("ImageFolderDataModule", "your own images: a folder or zip archive with a folder per class"),
        "hub-images": ("HubImagesDataModule", "any image data set of the hub or in a local folder"),
    }
    digits = {
        "data.batch_size": 32,
        "data.random_rotation": 10,
        "model.encoder.num_conv_channels": 64,
        "model.encoder.num_stages": 2,
        "trainer.max_epochs": 40,
    }
    small = {"data.batch_size": 64, "data.valid_batch_size": 500, "trainer.max_epochs": 20}
    mnist = small | {"data.random_shift": 2, "model.encoder.num_conv_channels": 64}
    own = {"data.batch_size": 32, "data.random_erasing": 0.5}
    defaults: dict[str, dict[str, Any]] = {
        "digits": digits,
        "mnist": mnist,
        "fashion-mnist": mnist,
        "cifar10": small,
        "imagenet": {"trainer.max_epochs": 20},
        "image-folder": own,
        "hub-images": own,
    }
    return [
        DataSpec(
            name=name,
            module=f"{PLUGIN}.data:{module}",
            tasks=("image-classification", "classification"),
            summary=summary,
            yields=("pixel_values",),
            defaults=defaults.get(name, {}),
            example={"batch_size": 4} if name == "digits" else None,
            path_option="path" if name == "image-folder" else None,
            path_suffixes=("/", ".zip"),
        )
        for name, (module, summary) in modules.items()
    ]


VISION = {
    "encoder.num_channels": 3,
    "encoder.num_cross_attention_heads": 1,
    "encoder.num_self_attention_heads": 8,
    "encoder.num_self_attention_qk_channels": 1024,
    "encoder.num_self_attention_v_channels": 1024,
    "encoder.num_self_attention_layers_per_block": 6,
    "encoder.num_self_attention_blocks": 8,
    "encoder.dropout": 0.1,
    "decoder": "classification",
    "decoder.num_classes": 1000,
    "decoder.num_output_query_channels": 1024,
    "decoder.num_cross_attention_heads": 1,
    "decoder.num_cross_attention_qk_channels": 1024,
    "decoder.num_cross_attention_v_channels": 1024,
    "decoder.dropout": 0.1,
    "num_latents": 512,
    "num_latent_channels": 1024,
    "init": "normal",
}
"""Options shared by the ImageNet classifiers of the Perceiver IO paper."""

ON_IMAGENET = {"data.image_size": 224, "data.num_channels": 3, "optimizer": "Lamb", "optimizer.lr": 2e-3}


@hookimpl
def perceiver_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="vision-perceiver-fourier",
            task="image-classification",
            config={
                **VISION,
                "encoder": "image-pixels",
                "encoder.num_frequency_bands": 64,
                "encoder.max_resolution": [224, 224],
                "encoder.num_cross_attention_qk_channels": 261,
                "encoder.num_cross_attention_v_channels": 261,
            },
            num_parameters=48_440_627,
            summary="ImageNet classifier of the Perceiver IO paper: pixels with Fourier positions",
            params="deepmind/vision-perceiver-fourier",
            defaults=ON_IMAGENET,
        ),
        ModelSpec(
            name="vision-perceiver-learned",
            task="image-classification",
            config={
                **VISION,
                "encoder": "image-learned",
                "encoder.image_size": [224, 224],
                "encoder.num_conv_channels": 256,
                "encoder.num_position_channels": 256,
                "encoder.num_cross_attention_qk_channels": 512,
                "encoder.num_cross_attention_v_channels": 512,
            },
            num_parameters=62_255_848,
            summary="ImageNet classifier of the Perceiver IO paper: 1x1 convolution, learned positions",
            params="deepmind/vision-perceiver-learned",
            defaults=ON_IMAGENET,
        ),
        ModelSpec(
            name="vision-perceiver-conv",
            task="image-classification",
            config={
                **VISION,
                "encoder": "image-conv",
                "encoder.num_conv_channels": 64,
                "encoder.num_frequency_bands": 64,
                "encoder.max_resolution": [56, 56],
                "encoder.num_cross_attention_qk_channels": 322,
                "encoder.num_cross_attention_v_channels": 322,
            },
            num_parameters=48_646_522,
            summary="ImageNet classifier of the Perceiver IO paper: convolutional stem",
            params="deepmind/vision-perceiver-conv",
            defaults=ON_IMAGENET,
        ),
        ModelSpec(
            name="mnist-classifier",
            task="image-classification",
            config={
                "encoder": "image-pixels",
                "encoder.num_channels": 1,
                "encoder.num_frequency_bands": 32,
                "encoder.max_resolution": [28, 28],
                "encoder.num_cross_attention_heads": 1,
                "encoder.num_cross_attention_qk_channels": 131,
                "encoder.num_cross_attention_v_channels": 131,
                "encoder.num_cross_attention_layers": 2,
                "encoder.first_cross_attention_layer_shared": False,
                "encoder.num_self_attention_heads": 8,
                "encoder.num_self_attention_layers_per_block": 3,
                "encoder.num_self_attention_blocks": 3,
                "encoder.first_self_attention_block_shared": False,
                "encoder.init_scale": 0.1,
                "decoder": "classification",
                "decoder.num_classes": 10,
                "decoder.num_output_query_channels": 128,
                "decoder.num_cross_attention_heads": 1,
                "decoder.init_scale": 0.1,
                "num_latents": 32,
                "num_latent_channels": 128,
                "init": "normal",
            },
            num_parameters=907_212,
            summary="small MNIST classifier on pixels",
            defaults={"data": "mnist", "optimizer.lr": 1e-3},
        ),
        ModelSpec(
            name="small-image-classifier",
            task="image-classification",
            config={
                "encoder": "image-patches",
                "encoder.num_channels": 3,
                "encoder.patch_size": 8,
                "encoder.num_patch_channels": 64,
                "encoder.num_frequency_bands": 16,
                "encoder.max_resolution": [28, 28],
                "encoder.num_cross_attention_heads": 1,
                "encoder.num_self_attention_heads": 4,
                "encoder.num_self_attention_layers_per_block": 4,
                "encoder.dropout": 0.1,
                "encoder.init_scale": 0.1,
                "decoder": "classification",
                "decoder.num_output_query_channels": 128,
                "decoder.num_cross_attention_heads": 1,
                "decoder.init_scale": 0.1,
                "num_latents": 64,
                "num_latent_channels": 128,
                "init": "normal",
            },
            num_parameters=619_462,
            summary="small classifier on patches of images up to 224x224, for a CPU (parameters: of two classes)",
            defaults={"data": "image-folder", "data.image_size": 64, "optimizer.lr": 1e-3},
        ),
    ]
