"""Causal language models with contexts of growing length."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.case import OURS, Case, Comparison, Contender, Job, Options

if TYPE_CHECKING:
    from torch import Tensor

CONTEXTS = tuple(2**power for power in range(11, 18))
"""Numbers of tokens, from 2 thousand to 131 thousand."""

VOCAB_SIZE = 262


def prefill(options: Options, num_tokens: int, num_channels: int, num_latents: int) -> Job:
    """Reads random tokens into a cache, and computes the logits of the next one."""
    import torch

    from benchmarks import memory
    from benchmarks.implementations import count_parameters
    from perceiver_core import PerceiverAR, PerceiverARConfig
    from perceiver_plugins.generation import (
        NextTokenDecoderConfig,
        NextTokenOutputAdapter,
        TokenEncoderConfig,
        TokenInputAdapter,
    )

    memory.mark("imports")
    torch.manual_seed(0)
    encoder = TokenEncoderConfig(vocab_size=VOCAB_SIZE, num_input_channels=num_channels)
    config = PerceiverARConfig(
        encoder,
        NextTokenDecoderConfig(),
        max_seq_len=num_tokens,
        num_latents=num_latents,
        num_latent_channels=num_channels,
    )
    input_adapter = TokenInputAdapter.from_config(encoder)
    output_adapter = NextTokenOutputAdapter.from_config(config.decoder, input_adapter)
    model = PerceiverAR(config, input_adapter, output_adapter).to(options.device).eval()
    tokens = torch.randint(VOCAB_SIZE, (1, num_tokens), device=options.device)

    @torch.inference_mode()
    def run() -> Tensor:
        return model.extend({"input_ids": tokens}, model.create_cache())

    return Job(run, {"parameters": count_parameters(model)})


def contexts(options: Options) -> list[Comparison]:
    """The first prediction after contexts of growing length."""
    sizes = (32, 64, 128) if options.quick else CONTEXTS
    model = {"num_channels": 16, "num_latents": 8} if options.quick else {"num_channels": 512, "num_latents": 512}
    return [
        Comparison(
            (Contender(OURS, f"{__name__}:prefill", {"num_tokens": size, **model}),),
            name=f"{size:,} tokens",
            size=size,
            max_rounds=3,
        )
        for size in sizes
    ]


CASES = [
    Case(
        "growth-context",
        "Growth with the context of a causal model",
        "The first prediction of a causal language model (8 layers, 512 latents of 512 channels) after contexts of 2 "
        "thousand to 131 thousand tokens, which it reads into its cache.",
        contexts,
        picture="growth",
    ),
]
