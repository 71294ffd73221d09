"""Checks that models of krasserm's perceiver-io compute here what they compute there.

    python benchmarks/krasserm_parity.py

Each model is built and saved by that package itself, with random weights, in its folder layout and as a checkpoint of
Lightning's, and read here. A table shows the largest difference of the outputs, relative to the largest output. See
benchmarks/README.md for the environment; the folders need opencv-python-headless as well.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

LIMIT = 1e-5
BATCH_SIZE = 3
PARTS = {
    "as small as it gets": ({}, {}, {}),
    "several blocks, first shared": (
        {
            "num_self_attention_blocks": 3,
            "num_cross_attention_layers": 2,
            "first_cross_attention_layer_shared": True,
            "cross_attention_widening_factor": 3,
        },
        {"cross_attention_widening_factor": 2},
        {},
    ),
    "several blocks, first not shared": (
        {
            "num_self_attention_blocks": 3,
            "num_cross_attention_layers": 3,
            "first_self_attention_block_shared": False,
            "self_attention_widening_factor": 2,
        },
        {},
        {"activation_checkpointing": True},
    ),
    "other channels, no residual": (
        {
            "num_cross_attention_heads": 2,
            "num_cross_attention_qk_channels": 6,
            "num_cross_attention_v_channels": 10,
            "num_self_attention_qk_channels": 20,
            "num_self_attention_v_channels": 28,
        },
        {
            "num_cross_attention_heads": 3,
            "num_cross_attention_qk_channels": 9,
            "num_cross_attention_v_channels": 15,
            "cross_attention_residual": False,
        },
        {"num_latents": 3},
    ),
}
"""Changes to a model's config: fields of its encoder, of its decoder, and of the model."""


@dataclass(frozen=True)
class Kind:
    """A kind of its models.

    Args:
        config: its class of configurations of that kind.
        encoder: that of the encoder, and values of it.
        decoder: that of the decoder, and values of it.
        model: its PyTorch model.
        wrapper: its class for the hub, and the configuration of that.
        inputs: random inputs, as the model takes them there, and the batch that is the same here.
        output: what the model here returns, in the shape that it has there.
    """

    config: Any
    encoder: tuple[Any, dict[str, Any]]
    decoder: tuple[Any, dict[str, Any]]
    model: Any
    wrapper: tuple[Any, Any]
    inputs: Callable[[], tuple[dict[str, Any], dict[str, Tensor]]]
    output: Callable[[Tensor], Tensor] = lambda output: output


def kinds() -> dict[str, Kind]:
    from perceiver.model.text import classifier, mlm
    from perceiver.model.vision import image_classifier, optical_flow

    vocab_size, max_seq_len, length = 262, 23, 17
    image_shape, frame_shape = (9, 14, 3), (7, 12)

    def text() -> tuple[dict[str, Any], dict[str, Tensor]]:
        ids = torch.randint(vocab_size, (BATCH_SIZE, length))
        padding = torch.arange(length) >= torch.tensor([[length], [length - 5], [3]])
        return {"x_masked": ids, "pad_mask": padding}, {"input_ids": ids, "attention_mask": (~padding).long()}

    def labelled_text() -> tuple[dict[str, Any], dict[str, Tensor]]:
        theirs, ours = text()
        return {"x": theirs["x_masked"], "pad_mask": theirs["pad_mask"]}, ours

    def image() -> tuple[dict[str, Any], dict[str, Tensor]]:
        pixels = torch.randn(BATCH_SIZE, *image_shape)
        return {"x": pixels}, {"pixel_values": pixels.permute(0, 3, 1, 2)}

    def frames() -> tuple[dict[str, Any], dict[str, Tensor]]:
        from perceiver.data.vision.optical_flow import OpticalFlowProcessor

        from perceiver_plugins.flow.data.pairs import frames_tensor

        pairs = torch.randint(256, (BATCH_SIZE, 2, *frame_shape, 3), dtype=torch.uint8).numpy()
        processor = OpticalFlowProcessor(frame_shape, patch_min_overlap=0)  # so that a frame is one part
        patches = torch.cat([processor.preprocess(tuple(pair)) for pair in pairs])
        return {"x": patches}, {"frames": torch.stack([frames_tensor(*pair) for pair in pairs])}

    words = {"vocab_size": vocab_size, "max_seq_len": max_seq_len}
    classes = {"num_classes": 5, "num_output_query_channels": 12, "num_cross_attention_heads": 2}
    embedded = {"num_input_channels": 15, "num_cross_attention_heads": 2}
    pixels = {"image_shape": image_shape, "num_frequency_bands": 3, "num_cross_attention_heads": 1}
    return {
        "language model, tied": Kind(
            mlm.MaskedLanguageModelConfig,
            (mlm.TextEncoderConfig, words | embedded),
            (mlm.TextDecoderConfig, words | {"num_cross_attention_heads": 5}),
            mlm.MaskedLanguageModel,
            (mlm.PerceiverMaskedLanguageModel, mlm.PerceiverMaskedLanguageModelConfig),
            text,
            lambda logits: logits[:, :length],
        ),
        "language model, own output": Kind(
            mlm.MaskedLanguageModelConfig,
            (mlm.TextEncoderConfig, words | embedded),
            (mlm.TextDecoderConfig, words | {"num_cross_attention_heads": 3, "num_output_query_channels": 18}),
            mlm.MaskedLanguageModel,
            (mlm.PerceiverMaskedLanguageModel, mlm.PerceiverMaskedLanguageModelConfig),
            text,
            lambda logits: logits[:, :length],
        ),
        "text classifier": Kind(
            classifier.TextClassifierConfig,
            (classifier.TextEncoderConfig, words | embedded),
            (classifier.ClassificationDecoderConfig, classes | {"num_output_queries": 2}),
            classifier.TextClassifier,
            (classifier.PerceiverTextClassifier, classifier.PerceiverTextClassifierConfig),
            labelled_text,
        ),
        "image classifier": Kind(
            image_classifier.ImageClassifierConfig,
            (image_classifier.ImageEncoderConfig, pixels),
            (image_classifier.ClassificationDecoderConfig, classes),
            image_classifier.ImageClassifier,
            (image_classifier.PerceiverImageClassifier, image_classifier.PerceiverImageClassifierConfig),
            image,
        ),
        "optical flow": Kind(
            optical_flow.OpticalFlowConfig,
            (
                optical_flow.OpticalFlowEncoderConfig,
                {**pixels, "image_shape": frame_shape, "num_patch_hidden_channels": 10},
            ),
            (
                optical_flow.OpticalFlowDecoderConfig,
                {"image_shape": frame_shape, "num_cross_attention_heads": 2, "rescale_factor": 30.0},
            ),
            optical_flow.OpticalFlow,
            (optical_flow.OpticalFlowPerceiver, optical_flow.OpticalFlowPerceiverConfig),
            frames,
            lambda flow: flow.unflatten(1, frame_shape),
        ),
    }


def build(kind: Kind, unusual: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> nn.Module:
    """Its model, with random weights."""
    small = {"num_self_attention_heads": 4, "num_self_attention_layers_per_block": 2}
    of_encoder, of_decoder, of_model = unusual
    encoder_type, encoder = kind.encoder
    decoder_type, decoder = kind.decoder
    config = kind.config(
        encoder_type(**(small | encoder | of_encoder)),
        decoder_type(**(decoder | of_decoder)),
        **({"num_latents": 6, "num_latent_channels": 16} | of_model),
    )
    model = kind.model(config)
    model.config = config  # not all of them keep it
    with torch.no_grad():
        for parameter in model.parameters():
            # Products keep their scale, so that no attention saturates.
            parameter.normal_(0.0, 1.0 / math.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 0.5)
    return model.eval()


def save_folder(kind: Kind, model: Any, path: Path) -> str:
    """Saves a model as it is published."""
    wrapper_type, config_type = kind.wrapper
    wrapper = wrapper_type(config_type(model.config))
    wrapper.backend_model.load_state_dict(model.state_dict())
    wrapper.save_pretrained(path)
    return str(path)


def save_checkpoint(model: Any, path: Path) -> str:
    """Saves a model as its training does: its own classes within Lightning's hyper-parameters."""
    config = model.config
    hyper_parameters = {
        "encoder": config.encoder,
        "decoder": config.decoder,
        "num_latents": config.num_latents,
        "num_latent_channels": config.num_latent_channels,
        "activation_checkpointing": config.activation_checkpointing,
        "activation_offloading": False,
        "params": None,
    }
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": hyper_parameters, "hparams_name": "kwargs"}, path)
    return str(path)


def save_trained(config: Any, path: Path) -> tuple[str, nn.Module]:
    """Trains a language model for no step with its own Lightning module, and saves it as Lightning does."""
    import pytorch_lightning as pl
    from perceiver.model.text.mlm import LitMaskedLanguageModel

    module = LitMaskedLanguageModel.create(config)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "barebones": False}
    trainer = pl.Trainer(accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)
    return str(path), module.model.eval()


@torch.no_grad()
def difference(kind: Kind, theirs: nn.Module, source: str) -> float:
    """Largest difference of the outputs, relative to the largest output there; infinity if they are not comparable."""
    from perceiver_registry import read_model

    model, _ = read_model(source, "krasserm")
    inputs, batch = kind.inputs()
    expected = theirs(**inputs)
    found = kind.output(model(batch))
    the_same_for_all = float((expected - expected[:1]).abs().max()) < 1e-3 * float(expected.abs().max())
    if found.shape != expected.shape or the_same_for_all:
        return math.inf
    return float((found - expected).abs().max() / expected.abs().max())


def main() -> None:
    try:
        import perceiver.model.core  # noqa: F401
    except ImportError as error:
        sys.exit(f"krasserm's perceiver-io is not installed ({error}); see benchmarks/README.md for its installation")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    worst = 0.0
    print(f"{'model':28}{'what is unusual':36}{'folder':>10}{'checkpoint':>12}")
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in kinds().items():
            for number, (description, unusual) in enumerate(PARTS.items()):
                model = build(kind, unusual)
                path = Path(folder, f"{name}-{number}")
                differences = (
                    difference(kind, model, save_folder(kind, model, path)),
                    difference(kind, model, save_checkpoint(model, path.with_suffix(".ckpt"))),
                )
                worst = max(worst, *differences)
                print(f"{name:28}{description:36}{differences[0]:10.1e}{differences[1]:12.1e}")
        tied = kinds()["language model, tied"]
        source, model = save_trained(build(tied, ({}, {}, {})).config, Path(folder, "trained.ckpt"))
        trained = difference(tied, model, source)
        worst = max(worst, trained)
        print(f"{'language model, tied':28}{'saved by Lightning itself':36}{'':10}{trained:12.1e}")
    print(f"\nlargest difference: {worst:.1e}")
    if not worst < LIMIT:
        sys.exit(f"that is more than {LIMIT:.0e}")


if __name__ == "__main__":
    main()
