"""Exact conversion of Hugging Face's Perceiver language models (``transformers.PerceiverForMaskedLM``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import transformers
from torch import Tensor

from perceiver_core import PerceiverConfig
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.tokenizers import one_line
from perceiver_plugins.training.connection import hub
from perceiver_registry import UserError

NUM_DECODER_HEADS = 8
NUM_DECODER_QK_CHANNELS = 256
"""Values of the masked-LM decoder that ``PerceiverForMaskedLM`` fixes in its code."""


def convert_config(
    config: transformers.PerceiverConfig, params: str | None = None
) -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
    """The configuration of the model that ``transformers.PerceiverForMaskedLM(config)`` builds.

    Args:
        config: Hugging Face's configuration.
        params: where to load weights from. None: where ``config`` was loaded from, if it was.

    Raises:
        ValueError: if ``config`` asks for an activation other than the exact GELU.
    """
    if config.hidden_act != "gelu":
        raise ValueError(f"hidden_act={config.hidden_act!r}: only 'gelu' is supported")
    # transformers fills in what is None only when it builds the model, so the same is done here.
    default_qk_channels = {"kv": config.d_model, "q": config.d_latents}[config.cross_attention_shape_for_attention]
    cross_qk_channels = config.qk_channels or default_qk_channels
    self_qk_channels = config.qk_channels or config.d_latents
    encoder = TextEncoderConfig(
        vocab_size=config.vocab_size,
        max_seq_len=config.max_position_embeddings,
        num_input_channels=config.d_model,
        num_cross_attention_heads=config.num_cross_attention_heads,
        num_cross_attention_qk_channels=cross_qk_channels,
        num_cross_attention_v_channels=config.v_channels or cross_qk_channels,
        cross_attention_widening_factor=config.cross_attention_widening_factor,
        cross_attention_residual=config.use_query_residual,
        num_self_attention_heads=config.num_self_attention_heads,
        num_self_attention_qk_channels=self_qk_channels,
        num_self_attention_v_channels=config.v_channels or self_qk_channels,
        num_self_attention_layers_per_block=config.num_self_attends_per_block,
        num_self_attention_blocks=config.num_blocks,
        self_attention_widening_factor=config.self_attention_widening_factor,
        dropout=config.attention_probs_dropout_prob,
        init_scale=config.initializer_range,
    )
    decoder = TextDecoderConfig(
        vocab_size=config.vocab_size,
        max_seq_len=config.max_position_embeddings,
        num_cross_attention_heads=NUM_DECODER_HEADS,
        num_cross_attention_qk_channels=NUM_DECODER_QK_CHANNELS,
        num_cross_attention_v_channels=config.d_model,
        cross_attention_widening_factor=1,
        cross_attention_residual=False,
        dropout=config.attention_probs_dropout_prob,
        init_scale=config.initializer_range,
    )
    return PerceiverConfig(
        encoder,
        decoder,
        num_latents=config.num_latents,
        num_latent_channels=config.d_latents,
        params=params or config.name_or_path or None,
    )


def published_config(source: str) -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
    """The configuration of the published model at ``source`` (a hub id or a local folder in the hub's layout).

    Raises:
        UserError: if there is no Perceiver at ``source``, or the hub cannot be reached.
    """
    try:
        with hub():
            config = transformers.AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise _not_loadable(source, error) from error
    if not isinstance(config, transformers.PerceiverConfig):
        raise UserError(f"params={source!r}: a model of type {config.model_type!r}, not a Perceiver")
    return convert_config(config, source)


def convert_params(source: str) -> dict[str, Tensor]:
    """The weights of the published model at ``source``, as a state dict of ``LanguageModel``.

    Raises:
        UserError: if there is no Perceiver language model at ``source``, or the hub cannot be reached.
    """
    try:
        with hub():
            loaded: Any = transformers.PerceiverForMaskedLM.from_pretrained(source, output_loading_info=True)
    except Exception as error:  # a file that is something else fails in any way
        raise _not_loadable(source, error) from error
    model, report = loaded
    if report["missing_keys"]:
        raise UserError(
            f"params={source!r}: not a Perceiver language model: its weights lack {min(report['missing_keys'])!r}"
        )
    return convert_state_dict(model.state_dict())


def convert_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turns the state dict of a ``transformers.PerceiverForMaskedLM`` into one of a ``LanguageModel``."""
    num_layers = len({key.split(".")[3] for key in state if key.startswith("perceiver.encoder.self_attends.")})
    return {ours: state[theirs] for ours, theirs in key_pairs(num_layers)}


def key_pairs(num_layers: int) -> Iterator[tuple[str, str]]:
    """Pairs of the names of a parameter in ``LanguageModel`` and in ``PerceiverForMaskedLM``.

    Args:
        num_layers: number of self-attention layers in a block.
    """
    embedding = "perceiver.input_preprocessor.embeddings.weight"
    yield "encoder.latents", "perceiver.embeddings.latents"
    yield "input_adapter.token_embedding.weight", embedding
    yield "input_adapter.position_embedding.weight", "perceiver.input_preprocessor.position_embeddings.weight"
    yield "output_adapter.embedding.weight", embedding
    yield "output_adapter.bias", "embedding_decoder.bias"
    yield (
        "output_adapter.query_provider.queries",
        "perceiver.decoder.output_position_encodings.position_embeddings",
    )
    yield from _layer_pairs("encoder.cross_attention_layers.0", "perceiver.encoder.cross_attention", cross=True)
    yield from _layer_pairs("decoder.cross_attention_layer", "perceiver.decoder.decoding_cross_attention", cross=True)
    for i in range(num_layers):
        yield from _layer_pairs(
            f"encoder.self_attention_blocks.0.{i}", f"perceiver.encoder.self_attends.{i}", cross=False
        )


def _layer_pairs(ours: str, theirs: str, cross: bool) -> Iterator[tuple[str, str]]:
    norms = {"q_norm": "layernorm1", "kv_norm": "layernorm2"} if cross else {"norm": "layernorm1"}
    modules = {
        **{norm: f"attention.self.{hf_norm}" for norm, hf_norm in norms.items()},
        "attention.q_proj": "attention.self.query",
        "attention.k_proj": "attention.self.key",
        "attention.v_proj": "attention.self.value",
        "attention.o_proj": "attention.output.dense",
        "mlp_norm": "layernorm",
        "mlp.hidden": "mlp.dense1",
        "mlp.output": "mlp.dense2",
    }
    for module, hf_module in modules.items():
        for name in ("weight", "bias"):
            yield f"{ours}.{module}.{name}", f"{theirs}.{hf_module}.{name}"


def _not_loadable(source: str, error: Exception) -> UserError:
    return UserError(
        f"params={source!r}: no Perceiver language model can be loaded from there (a hub id, a folder in the hub's "
        f"layout, a checkpoint or a safetensors file is expected): {one_line(error)}"
    )
