"""The same model, with the same weights, of each implementation. Runs in the process that measures it."""

from __future__ import annotations

import importlib
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from benchmarks import memory
from benchmarks.case import HUGGING_FACE, KRASSERM, OURS, Options

if TYPE_CHECKING:
    from torch import nn

    from perceiver_core import PerceiverConfig

NamedParameters = Iterator[tuple[str, "nn.Parameter"]]

KRASSERM_MODELS = {
    "text": ("perceiver.model.text.mlm.backend", "MaskedLanguageModel", "TextEncoderConfig", "TextDecoderConfig"),
    "image-pixels": (
        "perceiver.model.vision.image_classifier.backend",
        "ImageClassifier",
        "ImageEncoderConfig",
        "ClassificationDecoderConfig",
    ),
    "flow-patches": (
        "perceiver.model.vision.optical_flow.backend",
        "OpticalFlow",
        "OpticalFlowEncoderConfig",
        "OpticalFlowDecoderConfig",
    ),
}
"""For each input adapter: krasserm's module, and there the model and the configurations of encoder and decoder."""

KRASSERM_NAMES = (
    (r"^encoder\.input_adapter\.txt_embedding", "input_adapter.token_embedding"),
    (r"^encoder\.input_adapter\.pos_embedding", "input_adapter.position_embedding"),
    (r"^encoder\.input_adapter\.", "input_adapter."),
    (r"^encoder\.latent_provider\._query", "encoder.latents"),
    (r"^encoder\.cross_attn_1\.", "encoder.cross_attention_layers.0."),
    (r"^encoder\.self_attn_1\.", "encoder.self_attention_blocks.0."),
    (r"^decoder\.cross_attn\.", "decoder.cross_attention_layer."),
    (r"^decoder\.output_query_provider\._query", "output_adapter.query_provider.queries"),
    (r"^decoder\.output_adapter\.", "output_adapter."),
    (r"\.1\.module\.0\.", ".mlp_norm."),
    (r"\.1\.module\.1\.", ".mlp.hidden."),
    (r"\.1\.module\.3\.", ".mlp.output."),
    (r"\.0\.(module\.)?(attention|norm|q_norm|kv_norm)\.", r".\2."),
)
"""Names of krasserm's parameters, and what they are called here."""


def build(implementation: str, name: str, overrides: Mapping[str, Any], options: Options) -> nn.Module:
    """A named model of the zoo as an implementation has it, with weights that are the same for all implementations.

    Args:
        implementation: one of ``OURS``, ``HUGGING_FACE`` and ``KRASSERM``.
        name: name of the zoo's model.
        overrides: fields of its configuration with other values, as for ``perceiver_registry.create_model``.
        options: options of the command, of which the device is used.

    Raises:
        ValueError: if the implementation has no such model.
    """
    from perceiver_registry import registry
    from perceiver_registry.zoo import model_config

    config = model_config(registry().get("model", name), **overrides)
    builders = {OURS: _ours, HUGGING_FACE: _hugging_face, KRASSERM: _krasserm}
    model, parameters = builders[implementation](config)
    fill(parameters)
    return model.to(options.device)


def compile_model(implementation: str, model: nn.Module, options: Options) -> Any:
    """The model, compiled: ours as ``--model.compile=true`` does it, the peers' as a whole."""
    import torch

    if implementation != OURS:
        return torch.compile(model)
    from perceiver_plugins.sdk.tasks.compilation import compile_layers

    compile_layers(model, options.device)
    return model


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def fill(parameters: NamedParameters) -> None:
    """Draws each parameter at random, the same for the same name."""
    import torch

    generator = torch.Generator()
    with torch.no_grad():
        for name, parameter in parameters:
            generator.manual_seed(zlib.crc32(name.encode()))
            parameter.normal_(0.0, 0.03, generator=generator)
            if "norm.weight" in name:
                parameter.add_(1.0)


def _ours(config: PerceiverConfig) -> tuple[nn.Module, NamedParameters]:
    from perceiver_registry import assemble, registry

    registry().adapter_of("input", config.encoder).resolve("adapter")
    memory.mark("imports")
    model = assemble(config)
    return model, model.named_parameters()


def _hugging_face(config: PerceiverConfig) -> tuple[nn.Module, NamedParameters]:
    from perceiver_plugins.huggingface.conversion_table import CLASSES

    conversion = next(
        row.conversion()
        for row in CLASSES
        if (row.encoder, row.decoder) == (type(config.encoder), type(config.decoder))
    )
    theirs, model_type = conversion.hugging_face_config(config), conversion.model_type
    memory.mark("imports")
    model = model_type(theirs)
    # The first name here, where two names share one parameter there.
    ours = {their_name: name for name, their_name in reversed(list(conversion.pairs(config)))}
    return model, ((ours[name], parameter) for name, parameter in model.named_parameters())


def _krasserm(config: PerceiverConfig) -> tuple[nn.Module, NamedParameters]:
    from perceiver_registry import registry

    adapter = registry().adapter_of("input", config.encoder).name
    if adapter not in KRASSERM_MODELS:
        raise ValueError(f"krasserm has no model with the input adapter {adapter!r}")
    module_name, model_type, encoder_type, decoder_type = KRASSERM_MODELS[adapter]
    module = importlib.import_module(module_name)
    core = importlib.import_module("perceiver.model.core")
    memory.mark("imports")
    encoder, decoder = config.encoder, config.decoder
    named_otherwise: dict[str, Any] = {}
    if adapter == "image-pixels":
        named_otherwise = {"image_shape": (*encoder.max_resolution, encoder.num_channels)}
    elif adapter == "flow-patches":
        named_otherwise = {
            "image_shape": encoder.image_size,
            "num_patch_hidden_channels": encoder.num_patch_channels,
        }
    model = getattr(module, model_type)(
        core.PerceiverIOConfig(
            _same_fields(getattr(module, encoder_type), encoder, named_otherwise),
            _same_fields(getattr(module, decoder_type), decoder, named_otherwise),
            num_latents=config.num_latents,
            num_latent_channels=config.num_latent_channels,
        )
    )
    return model, ((krasserm_name(name), parameter) for name, parameter in model.named_parameters())


def _same_fields(theirs: Any, ours: Any, named_otherwise: Mapping[str, Any]) -> Any:
    names = {each.name for each in fields(theirs)}
    values = {name: getattr(ours, name) for name in names if hasattr(ours, name)}
    return theirs(**values | {name: value for name, value in named_otherwise.items() if name in names})


def krasserm_name(name: str) -> str:
    """The name that a parameter of krasserm's model has here."""
    # PerceiverIO is a Sequential there: 0 is the encoder, 1 the decoder.
    name = re.sub(r"^1\.", "decoder.", re.sub(r"^0\.", "encoder.", name))
    for pattern, replacement in KRASSERM_NAMES:
        name = re.sub(pattern, replacement, name)
    return name
