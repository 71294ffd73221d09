"""Beam search against that of transformers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import BeamSearch, NextTokenDecoderConfig, TokenEncoderConfig, beam_search
from perceiver_plugins.huggingface import ZooConfig, ZooForCausalLM
from perceiver_registry import ModelDescription

NUM_TOKENS = 12

PAD = NUM_TOKENS
"""Token that is never generated."""

NEW = 12
"""Tokens to generate."""

STOPS = (4, 7)

PROMPTS = (1, 9, 30)

OPTIONS = {
    "usual": BeamSearch(),
    "one": BeamSearch(1),
    "early": BeamSearch(3, early_stopping=True),
    "long": BeamSearch(5, length_penalty=2.0),
    "short": BeamSearch(5, length_penalty=-1.0),
    "penalty": BeamSearch(2, repetition_penalty=1.5),
}


@functools.cache
def model() -> ZooForCausalLM:
    encoder = TokenEncoderConfig(
        vocab_size=NUM_TOKENS + 1,
        num_input_channels=16,
        num_cross_attention_heads=2,
        num_self_attention_heads=2,
        num_self_attention_layers_per_block=1,
    )
    config: Any = PerceiverARConfig(
        encoder, NextTokenDecoderConfig(), max_seq_len=14, num_latents=5, num_latent_channels=16, refill_stride=2
    )
    made = ZooForCausalLM(ZooConfig.from_description(ModelDescription.create("clm", config, {}))).double().eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            nn.init.normal_(parameter, 0.0, 0.5, generator=generator)
        made.perceiver.output_adapter.bias[PAD] = -1e9
    return made


def prompts() -> tuple[Tensor, Tensor]:
    ids = torch.full((len(PROMPTS), max(PROMPTS)), PAD)
    for row, length in enumerate(PROMPTS):
        ids[row, -length:] = torch.randint(NUM_TOKENS, (length,), generator=torch.Generator().manual_seed(length))
    return ids, (ids != PAD).long()


def oracle(search: BeamSearch, stops: Sequence[int], row: int) -> list[list[int]]:
    """Return the continuations of one prompt by transformers, without a cache."""
    ids, mask = prompts()
    found = model().generate(
        ids[row, -PROMPTS[row] :][None],
        attention_mask=mask[row, -PROMPTS[row] :][None],
        max_new_tokens=NEW,
        num_beams=search.num_beams,
        num_return_sequences=search.num_beams,
        length_penalty=search.length_penalty,
        early_stopping=search.early_stopping,
        repetition_penalty=search.repetition_penalty,
        eos_token_id=[*stops, PAD] if stops else PAD,
        pad_token_id=PAD,
        use_cache=False,
    )
    return [[token for token in tokens if token != PAD] for tokens in found[:, PROMPTS[row] :].tolist()]


@pytest.mark.parametrize("stops", [(), STOPS], ids=["", "stops"])
@pytest.mark.parametrize("name", OPTIONS)
def test_continuations_equal_those_of_transformers(name: str, stops: tuple[int, ...]) -> None:
    search = OPTIONS[name]
    found = beam_search(model().perceiver, *prompts(), NEW, search, stops)
    for row, continuations in enumerate(found):
        expected = oracle(search, stops, row)
        assert [tokens.tolist() for tokens in continuations] == expected
        assert len({*map(tuple, expected)}) == search.num_beams
    if stops and name in ("usual", "early", "short"):  # the others prefer continuations without an end
        assert any(tokens[-1] in stops for continuations in found for tokens in continuations)
        assert len({len(tokens) for continuations in found for tokens in continuations}) > 1


def test_a_function_ends_continuations() -> None:
    found = beam_search(model().perceiver, *prompts(), NEW, has_ended=lambda row, tokens: tokens[-1] in STOPS)
    expected = beam_search(model().perceiver, *prompts(), NEW, stop_ids=STOPS)
    best, wanted = ([continuations[0].tolist() for continuations in each] for each in (found, expected))
    assert best == wanted


def test_the_mode_of_the_model_is_restored() -> None:
    made = model().perceiver.train()
    beam_search(made, torch.tensor([[1]]), max_new_tokens=1)
    assert made.training
    made.eval()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_beams": 0}, "num_beams=0 must be at least 1"),
        ({"repetition_penalty": 0.0}, "must be greater than 0"),
        ({"length_penalty": 3000.0}, "length_penalty=3000.0 must be at least -10 and at most 10"),
        ({"length_penalty": float("nan")}, "length_penalty=nan must be"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSearch(**values)


def test_inputs_that_cannot_be_continued_are_refused() -> None:
    ids = torch.ones(2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="a prompt is empty"):
        beam_search(model().perceiver, ids, torch.tensor([[0, 0], [1, 1]]))
    with pytest.raises(ValueError, match="max_new_tokens=0 must be at least 1"):
        beam_search(model().perceiver, ids, max_new_tokens=0)
