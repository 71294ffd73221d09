"""Specs of causal models of tokens. Does not import torch."""

from __future__ import annotations

from perceiver_registry import AdapterSpec, ArchitectureSpec, hookimpl

PERCEIVER_INTERFACE = "2.2"


@hookimpl
def perceiver_architectures() -> list[ArchitectureSpec]:
    return [
        ArchitectureSpec(
            name="perceiver-ar",
            model="perceiver_core:PerceiverAR",
            config="perceiver_core:PerceiverARConfig",
            summary="causal model whose latents are the last inputs (arXiv 2202.07765)",
            example={
                "model.encoder": "tokens",
                "model.decoder": "tokens",
                "model.max_seq_len": 12,
                "model.num_latents": 4,
                "model.num_latent_channels": 16,
            },
        )
    ]


@hookimpl
def perceiver_adapters() -> list[AdapterSpec]:
    return [
        AdapterSpec(
            name="tokens",
            kind="input",
            adapter="perceiver_plugins.generation.adapters:TokenInputAdapter",
            config="perceiver_plugins.generation.config:TokenEncoderConfig",
            summary="tokens without positions, for causal models",
            links={"vocab_size": "vocab_size"},
            reads=("input_ids", "attention_mask"),
            reader="perceiver_plugins.text.continuation:PromptReader",
            data_options=("tokenizer",),
            size_rule="perceiver_plugins.generation.sizing:size_rule",
            example={"model.encoder.vocab_size": 40, "model.encoder.num_input_channels": 16},
        ),
        AdapterSpec(
            name="tokens",
            kind="output",
            adapter="perceiver_plugins.generation.adapters:NextTokenOutputAdapter",
            config="perceiver_plugins.generation.config:NextTokenDecoderConfig",
            summary="logits of the token after each input, with tied or separate output weights",
            tasks=("clm", "symbolic-music"),
        ),
    ]
