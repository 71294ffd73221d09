"""Generation against an oracle without a cache."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perceiver_core import PerceiverAR, PerceiverARConfig
from perceiver_plugins.generation import NextTokenDecoderConfig, Sampling, TokenEncoderConfig, generate
from perceiver_plugins.generation.adapters import NextTokenOutputAdapter, TokenInputAdapter

VOCAB_SIZE = 12

NUM_NEW = 20
"""Tokens to generate: all regimes occur with 23 inputs at once."""

PROMPTS = (1, 9, 30)

OPTIONS = {
    "greedy": Sampling(temperature=0.0),
    "plain": Sampling(),
    "temperature": Sampling(temperature=0.6),
    "top_k": Sampling(top_k=3),
    "top_p": Sampling(top_p=0.7),
    "penalty": Sampling(temperature=0.0, repetition_penalty=1.7),
    "all": Sampling(1.3, 0.8, 7, 0.9),
}


@functools.cache
def model(stride: int) -> PerceiverAR:
    encoder = TokenEncoderConfig(
        vocab_size=VOCAB_SIZE,
        num_input_channels=16,
        num_cross_attention_heads=2,
        num_self_attention_heads=2,
        num_self_attention_layers_per_block=2,
    )
    decoder = NextTokenDecoderConfig()
    config: Any = PerceiverARConfig(
        encoder, decoder, max_seq_len=23, num_latents=7, num_latent_channels=16, refill_stride=stride
    )
    input_adapter = TokenInputAdapter.from_config(encoder)
    made = PerceiverAR(config, input_adapter, NextTokenOutputAdapter.from_config(decoder, input_adapter)).double()
    generator = torch.Generator().manual_seed(stride)
    for parameter in made.parameters():  # large: with small weights, a wrong cache has nearly the same output
        nn.init.normal_(parameter, 0.0, 1.0, generator=generator)
    return made.train()


def prompt(length: int) -> list[int]:
    return torch.randint(VOCAB_SIZE, (length,), generator=torch.Generator().manual_seed(length)).tolist()


def padded(prompts: list[list[int]]) -> tuple[Tensor, Tensor]:
    size = max(map(len, prompts))
    ids = [[3] * (size - len(each)) + each for each in prompts]
    mask = [[0] * (size - len(each)) + [1] * len(each) for each in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def oracle_probabilities(logits: np.ndarray, tokens: list[int], options: Sampling) -> np.ndarray:
    """Compute the probabilities of the next token, token by token."""
    scores = logits.astype(float)
    for token in set(tokens):
        factor = options.repetition_penalty
        scores[token] = scores[token] / factor if scores[token] > 0 else scores[token] * factor
    order = sorted(range(len(scores)), key=lambda token: -scores[token])
    if options.temperature == 0.0:
        return np.eye(len(scores))[order[0]]
    weights = np.exp((scores - scores.max()) / options.temperature)
    for token in order[options.top_k or len(order) :]:
        weights[token] = 0.0
    weights /= weights.sum()
    if options.top_p is not None:
        total = 0.0
        for token in order:
            if total >= options.top_p:
                weights[token] = 0.0
            total += weights[token]
    return weights / weights.sum()


def oracle(stride: int, tokens: list[int], options: Sampling, seed: Any) -> list[int]:
    """Generate without a cache: the model reads all tokens anew for each new one."""
    tokens, rng, start = list(tokens), np.random.default_rng(seed), len(tokens)
    made = model(stride).eval()
    for _ in range(NUM_NEW):
        logits = made.score({"input_ids": torch.tensor([tokens])}, 1)[0, -1].numpy()
        probabilities = oracle_probabilities(logits, tokens, options)
        quantile, total = rng.random(), 0.0
        for token in np.argsort(-probabilities, kind="stable"):
            total += probabilities[token]
            if quantile < total:
                break
        tokens.append(int(token))
    return tokens[start:]


@pytest.mark.parametrize(("name", "stride"), [*((name, 3) for name in OPTIONS), ("plain", 1), ("all", 7)])
def test_generation_equals_the_oracle_without_a_cache(name: str, stride: int) -> None:
    options = OPTIONS[name]
    prompts = [prompt(length) for length in PROMPTS]
    seeds = [(5, number) for number in range(len(prompts))]
    expected = [oracle(stride, tokens, options, seed) for tokens, seed in zip(prompts, seeds, strict=True)]
    batch = generate(model(stride), *padded(prompts), NUM_NEW, options, seeds=seeds)
    assert [tokens.tolist() for tokens in batch] == expected
    for tokens, seed, wanted in zip(prompts, seeds, expected, strict=True):
        (alone,) = generate(model(stride), torch.tensor([tokens]), None, NUM_NEW, options, seeds=[seed])
        assert alone.tolist() == wanted
    assert len({tuple(tokens) for tokens in expected}) == len(prompts)


def test_samples_follow_the_distribution() -> None:
    logits = torch.randn(1, VOCAB_SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 2
    for options in (OPTIONS["plain"], OPTIONS["all"]):
        size = 20_000
        seen = torch.zeros(size, VOCAB_SIZE, dtype=torch.bool)
        seen[:, 4] = True
        quantiles = np.random.default_rng(1).random(size).tolist()
        chosen = options.choose(logits.expand(size, -1), seen, quantiles)
        found = torch.bincount(chosen, minlength=VOCAB_SIZE) / size
        expected = oracle_probabilities(logits[0].numpy(), [4], options)
        assert np.abs(found.numpy() - expected).max() < 0.015
        assert not found.numpy()[expected == 0].any()


def test_stop_tokens_end_rows_and_leave_the_others_unchanged() -> None:
    prompts = [prompt(length) for length in PROMPTS]
    whole = [tokens.tolist() for tokens in generate(model(3), *padded(prompts), NUM_NEW)]
    stop = whole[1][4]
    stopped = [tokens.tolist() for tokens in generate(model(3), *padded(prompts), NUM_NEW, stop_ids=[stop])]
    assert stopped == [tokens[: tokens.index(stop) + 1] if stop in tokens else tokens for tokens in whole]
    assert len({*map(len, stopped)}) > 1


def test_callback_receives_each_token_and_ends_rows() -> None:
    prompts = [prompt(length) for length in PROMPTS]
    whole = [tokens.tolist() for tokens in generate(model(3), *padded(prompts), NUM_NEW)]
    received: list[list[int]] = [[] for _ in prompts]

    def on_token(row: int, token: int) -> bool:
        received[row].append(token)
        return len(received[row]) == 5 * row + 1

    found = generate(model(3), *padded(prompts), NUM_NEW, on_token=on_token)
    assert [tokens.tolist() for tokens in found] == received
    assert received == [tokens[: 5 * row + 1] for row, tokens in enumerate(whole)]


def test_the_mode_of_the_model_is_restored() -> None:
    for training in (True, False):
        made = model(3).train(training)
        generate(made, torch.tensor([[1]]), max_new_tokens=1)
        assert made.training == training


def test_no_new_tokens() -> None:
    (tokens,) = generate(model(3), torch.tensor([[1]]), max_new_tokens=0)
    assert tokens.shape == (0,)
    assert tokens.dtype == torch.long


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temperature": -0.1}, "temperature=-0.1 must be at least 0"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_p": 0.0}, "top_p=0.0 must be greater than 0 and at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty=0.0 must be greater than 0"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**values)


@pytest.mark.parametrize(
    ("mask", "seeds", "message"),
    [
        ([[0, 0], [1, 1]], None, "a prompt is empty"),
        ([[1, 0], [1, 1]], None, "padding follows inputs"),
        ([[1, 1], [1, 1]], [1], "seeds: must be 2"),
    ],
)
def test_prompts_that_cannot_be_continued_are_refused(mask: Any, seeds: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(model(3), torch.ones(2, 2, dtype=torch.long), torch.tensor(mask), seeds=seeds)
