"""Causal language models (Perceiver AR): beside krasserm's, and with contexts of growing length."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.case import KRASSERM, OURS, Case, Comparison, Contender, Job, Options
from benchmarks.cases.language_model import with_floor

if TYPE_CHECKING:
    from torch import Tensor

VOCAB_SIZE = 262

PUBLISHED = {
    "vocab_size": VOCAB_SIZE,
    "max_seq_len": 4096,
    "max_latents": 512,
    "num_channels": 512,
    "num_self_attention_layers": 8,
    "num_self_attention_rotary_layers": 1,
}
"""Fields of the configuration of krasserm's published model of WikiText with 30.6 million parameters."""

TINY = {**PUBLISHED, "max_seq_len": 32, "max_latents": 8, "num_channels": 32, "num_self_attention_layers": 2}

CONTEXTS = tuple(2**power for power in range(11, 18))
"""Numbers of tokens, from 2 thousand to 131 thousand."""


def build(options: Options, implementation: str, dtype: str = "float32") -> tuple[Any, dict[str, Any]]:
    """Create the published model of an implementation, with the same weights for all, and return its fields."""
    import torch

    from benchmarks import memory
    from benchmarks.implementations import fill
    from perceiver_plugins.krasserm.causal import LANGUAGE_MODEL, parameter_pairs
    from perceiver_plugins.krasserm.files import Original
    from perceiver_registry import assemble

    fields = TINY if options.quick else PUBLISHED
    config = LANGUAGE_MODEL.convert_config(Original("krasserm", fields, dict, dict, dict))
    if implementation == KRASSERM:
        theirs = importlib.import_module("perceiver.model.text.clm.backend")
        memory.mark("imports")
        model = theirs.CausalLanguageModel(theirs.CausalLanguageModelConfig(**fields))
        ours = {their_name: name for name, their_name in reversed(list(parameter_pairs(config)))}
        fill((ours[name], parameter) for name, parameter in model.named_parameters())
    else:
        memory.mark("imports")
        model = assemble(config)
        fill(model.named_parameters())
    return model.to(options.device, getattr(torch, dtype)), fields


def random_tokens(options: Options, num_tokens: int) -> Tensor:
    """Draw tokens (1, ``num_tokens``)."""
    import torch

    generator = torch.Generator().manual_seed(7)
    return torch.randint(VOCAB_SIZE, (1, num_tokens), generator=generator).to(options.device)


def decode(options: Options, implementation: str, dtype: str = "float32") -> Job:
    """Appends given tokens to a full window, one at a time, and predicts the next one after each."""
    import torch

    model, fields = build(options, implementation, dtype)
    model.eval()
    step = _krasserm_decoder(model, fields) if implementation == KRASSERM else _decoder(model)
    step = torch.inference_mode()(step)
    step(random_tokens(options, fields["max_seq_len"]))
    tokens = random_tokens(options, fields["max_latents"] // 2)  # our latents advance once

    def run() -> None:
        for token in tokens.split(1, dim=1):
            step(token)

    return Job(run, {"tokens": tokens.shape[1]})


def read_memory(options: Options, dtype: str = "float32") -> Job:
    """Read the matrices and the cache of our model, once for each token of :func:`decode`, by summing them."""
    import torch

    model, fields = build(options, OURS, dtype)
    cache = model.eval().create_cache()
    model.extend({"input_ids": random_tokens(options, fields["max_seq_len"])}, cache)
    arrays = [module.weight.detach() for module in model.modules() if isinstance(module, torch.nn.Linear)]
    arrays += [buffer for each in (cache.keys, *cache.latents) for buffer in each._buffers]
    num_tokens = fields["max_latents"] // 2

    def run() -> None:
        for _ in range(num_tokens):
            for array in arrays:
                array.sum()

    return Job(run, {"bytes": num_tokens * sum(array.nbytes for array in arrays)})


def _decoder(model: Any) -> Callable[[Tensor], Tensor]:
    """Return a function that appends tokens (1, k) to a cache and predicts the next one."""
    cache = model.create_cache()
    return lambda tokens: model.extend({"input_ids": tokens}, cache).argmax(-1)


def _krasserm_decoder(model: Any, fields: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """Return the same for krasserm's model, as its ``prepare_inputs_for_generation`` does once the window is full."""
    size, num_latents = fields["max_seq_len"], fields["max_latents"]
    cache: list[tuple[Tensor, Tensor]] = []

    def step(tokens: Tensor) -> Tensor:
        nonlocal cache
        limits = [size - 1] + [num_latents - 1] * (len(cache) - 1)
        cache = [(k[:, -n:], v[:, -n:]) for (k, v), n in zip(cache, limits, strict=False)]
        output = model(tokens, prefix_len=size - num_latents, kv_cache=cache)
        cache = output.kv_cache
        return output.logits[:, -1:].argmax(-1)

    return step


def read_prompt(options: Options, implementation: str) -> Job:
    """Reads a full window into an empty cache, and computes the logits of the next token."""
    import torch

    model, fields = build(options, implementation)
    model.eval()
    tokens = random_tokens(options, fields["max_seq_len"])

    @torch.inference_mode()
    def run() -> Tensor:
        if implementation == OURS:
            return model.extend({"input_ids": tokens}, model.create_cache())
        return model(tokens, prefix_len=fields["max_seq_len"] - fields["max_latents"], kv_cache=[]).logits[:, -1:]

    return Job(run)


def train(options: Options, implementation: str, fused: bool) -> Job:
    """A training step on a full window: forward with prefix dropout, backward and AdamW."""
    import torch
    from torch.nn.functional import cross_entropy

    torch.optim.AdamW([torch.zeros(1)])  # imports a lot, which is not the model's memory
    model, fields = build(options, implementation)
    model.train()
    tokens = random_tokens(options, fields["max_seq_len"] + 1)
    labels = tokens[0, -fields["max_latents"] :]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused or None)  # None: torch's default

    def run() -> Tensor:
        torch.manual_seed(0)  # both draw the same prefix
        optimizer.zero_grad(set_to_none=True)
        if implementation == OURS:
            logits = model({"input_ids": tokens[:, :-1]})
        else:
            logits = model(tokens[:, :-1], prefix_len=fields["max_seq_len"] - fields["max_latents"]).logits
        loss = cross_entropy(logits[0], labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Job(run)


def contender(work: str, implementation: str, variant: str = "", **arguments: Any) -> Contender:
    """A contender of this module."""
    return Contender(implementation + variant, f"{__name__}:{work}", {"implementation": implementation, **arguments})


def decode_cases(options: Options) -> list[Comparison]:
    """Compare decoding in single and half precision, and reading the same memory."""
    contenders = []
    for variant, dtype in (("", "float32"), (", bf16", "bfloat16")):
        contenders += [contender("decode", name, variant, dtype=dtype) for name in (OURS, KRASSERM)]
        contenders.append(Contender(f"memory alone{variant}", f"{__name__}:read_memory", {"dtype": dtype}, exact=False))
    return [Comparison(tuple(contenders))]


def prompt_cases(options: Options) -> list[Comparison]:
    """Compare the reading of a prompt."""
    return [Comparison(with_floor([contender("read_prompt", name) for name in (OURS, KRASSERM)]))]


def train_cases(options: Options) -> list[Comparison]:
    """Compare training steps, those of krasserm's model with torch's default AdamW and with a fused one."""
    ours = contender("train", OURS, fused=True)
    peers = [contender("train", KRASSERM, variant, fused=bool(variant)) for variant in ("", ", fused AdamW")]
    return [Comparison(with_floor([ours, *peers]))]


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


_MODEL = "krasserm's published model of WikiText (30.6 million parameters, 4,096 bytes, 512 latents), batch 1"

CASES = [
    Case(
        "causal-decode",
        "Causal language model, decoding",
        f"{_MODEL}: 256 bytes after a full window, one at a time, with a cache. Ours computes many latents again once, "
        "so that its predictions equal those without a cache; those of krasserm's cache differ. "
        '"Memory alone" sums the matrices and the cache that ours reads, once for each byte.',
        decode_cases,
    ),
    Case(
        "causal-prompt",
        "Causal language model, prompt",
        f"{_MODEL}: the first prediction after a prompt, which is read into a cache.",
        prompt_cases,
    ),
    Case(
        "causal-train",
        "Causal language model, training step",
        f"{_MODEL}: forward with prefix dropout, backward and AdamW on 4,096 bytes.",
        train_cases,
    ),
    Case(
        "growth-context",
        "Growth with the context of a causal model",
        "The first prediction of a causal language model (8 layers, 512 latents of 512 channels) after contexts of 2 "
        "thousand to 131 thousand tokens, which it reads into its cache.",
        contexts,
        picture="growth",
    ),
]
