"""Generation of causal models with transformers: with the cache as without, in all regimes of the window."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import NextTokenDecoderConfig, TokenEncoderConfig
from perceiver_plugins.huggingface import ZooConfig, ZooForCausalLM, ZooForMaskedLM, ZooModel
from perceiver_plugins.huggingface.zoo_cache import CACHE, ZooCache
from perceiver_registry import ModelDescription, UserError

NUM_TOKENS = 12

PAD = NUM_TOKENS
"""Token that is never generated."""

NEW = 14
"""Tokens to generate."""

PEER = {"separate_prefix_norm": True, "absolute_positions": True}

MODELS: dict[str, tuple[tuple[int, int, int], dict[str, Any]]] = {
    "usual": ((12, 4, 2), {}),
    "peer": ((11, 5, 3), PEER),
    "no-prefix": ((8, 8, 4), {}),
    "peer-stride-1": ((10, 4, 1), PEER),
}
"""Largest numbers of inputs and latents, strides, and other options."""

PROMPTS = (1, 5, 20)
"""Numbers of tokens: with less than the latents, a prefix, and more than the window."""

MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 8, "top_p": 0.95, "temperature": 1.2, "repetition_penalty": 1.3}
    | {"no_repeat_ngram_size": 3},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.7},
    "sampled-beams": {"num_beams": 2, "do_sample": True},
}


def make(sizes: tuple[int, int, int], seed: int = 0, noise: float = 0.0, **options: Any) -> ZooForCausalLM:
    """Return a model with large random weights, optionally with noise on them."""
    max_seq_len, num_latents, stride = sizes
    config: Any = PerceiverARConfig(
        TokenEncoderConfig(
            vocab_size=NUM_TOKENS + 1,
            num_input_channels=16,
            num_cross_attention_heads=2,
            num_self_attention_heads=2,
            num_self_attention_layers_per_block=2,
        ),
        NextTokenDecoderConfig(),
        max_seq_len=max_seq_len,
        num_latents=num_latents,
        num_latent_channels=16,
        refill_stride=stride,
        **options,
    )
    model = ZooForCausalLM(ZooConfig.from_description(ModelDescription.create("clm", config, {}))).double().eval()
    generator, other = (torch.Generator().manual_seed(each) for each in (seed, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, 0.0, 0.7, generator=generator)
            parameter += noise * torch.randn(parameter.shape, dtype=parameter.dtype, generator=other)
        model.perceiver.output_adapter.bias[PAD] = -1e9
    return model


def prompt(length: int, batch_size: int = 1) -> Tensor:
    return torch.randint(NUM_TOKENS, (batch_size, length), generator=torch.Generator().manual_seed(length))


def generated(model: ZooForCausalLM, ids: Tensor, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"max_new_tokens": NEW, "pad_token_id": PAD, "eos_token_id": PAD} | options
    return model.generate(ids, attention_mask=(ids != PAD).long(), **options)


def greedy(model: Any, ids: Tensor, number: int = NEW) -> Tensor:
    """Continue prompts (b, k) greedily without transformers and without a cache."""
    for _ in range(number):
        batch = {"input_ids": ids, "attention_mask": (ids != PAD).long()}
        ids = torch.cat([ids, model.perceiver.score(batch, 1)[:, -1].argmax(dim=-1, keepdim=True)], dim=1)
    return ids


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("mode", MODES)
def test_generation_with_the_cache_equals_that_without(mode, name):
    sizes, options = MODELS[name]
    model = make(sizes, **options)
    for length in PROMPTS:
        ids = prompt(length)
        found = generated(model, ids, **MODES[mode])
        assert torch.equal(found, generated(model, ids, use_cache=False, **MODES[mode]))
        assert found.shape == (MODES[mode].get("num_return_sequences", 1), length + NEW)
        if mode == "greedy":
            assert torch.equal(found, greedy(model, ids))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("assistance", ["assistant", "lookup"])
def test_assisted_generation_equals_greedy(assistance, name):
    sizes, options = MODELS[name]
    model = make(sizes, **options)
    assistant = make(sizes, noise=0.2, **options)
    given = {"assistant_model": assistant} if assistance == "assistant" else {"prompt_lookup_num_tokens": 3}
    for length in PROMPTS:
        expected = greedy(model, prompt(length))
        found = generated(model, prompt(length), **given)
        # prompt lookup of versions before 5.24 may generate more
        assert torch.equal(found[:, : expected.shape[1]], expected)


@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_prompts_of_a_batch_are_continued_as_one_by_one(mode):
    model = make((12, 4, 2))
    lengths = (3, 17, 8)
    batch = torch.full((3, 17), PAD)
    for row, length in enumerate(lengths):
        batch[row, -length:] = prompt(length)
    found = generated(model, batch, **MODES[mode])
    number = len(found) // 3
    for row, length in enumerate(lengths):
        alone = generated(model, prompt(length), **MODES[mode])
        assert torch.equal(found[row * number : (row + 1) * number, -length - NEW :], alone)


def test_generation_continues_with_the_returned_cache():
    model, ids = make((12, 4, 2)), prompt(5)
    first = generated(model, ids, return_dict_in_generate=True)
    cache = first[CACHE]
    assert isinstance(cache, ZooCache)
    assert cache.get_seq_length() == first.sequences.shape[1] - 1
    assert repr(cache) == f"ZooCache(tokens={cache.get_seq_length()})"
    assert (cache.batch_size, len(cache)) == (1, 3)
    again = generated(model, first.sequences, **{CACHE: cache})
    assert torch.equal(again, greedy(model, ids, 2 * NEW))


@pytest.mark.skipif(not hasattr(GenerationConfig(), "prefill_chunk_size"), reason="not in this transformers")
def test_prompts_can_be_read_in_chunks():
    model, ids = make((12, 4, 2)), prompt(20)
    assert torch.equal(generated(model, ids, prefill_chunk_size=6), greedy(model, ids))


def test_cache_can_be_cropped_selected_and_repeated():
    model, ids = make((12, 4, 2)), prompt(20, 2)
    outputs = model(ids, use_cache=True)
    cache = outputs[CACHE]
    cache.crop(-9)
    assert cache.get_seq_length() == 11
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([2, 1]))
    found = model(ids[[1, 0], 11:], **{CACHE: cache}).logits
    torch.testing.assert_close(found, outputs.logits[[1, 0], 11:], rtol=0, atol=1e-10)


def test_stopping_and_streaming():
    model, ids = make((12, 4, 2)), prompt(5)
    expected = greedy(model, ids)
    seen: list[int] = []

    class Streamer(BaseStreamer):
        def put(self, value: Tensor) -> None:
            seen.extend(value.flatten().tolist())

        def end(self) -> None:
            seen.append(-1)

    class Long(StoppingCriteria):
        def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 9)

    generated(model, ids, streamer=Streamer())
    assert seen == [*expected[0].tolist(), -1]
    # Tokenizers are for stopping criteria.
    assert torch.equal(generated(model, ids, tokenizer=object()), expected)
    stopped = generated(model, ids, stopping_criteria=StoppingCriteriaList([Long()]))
    assert torch.equal(stopped, expected[:, :9])
    end = int(expected[0, 8])
    first = int((expected[0, 5:] == end).nonzero()[0]) + 6
    assert torch.equal(generated(model, ids, eos_token_id=end), expected[:, :first])


def test_logits_are_those_of_the_model():
    model, ids = make((12, 4, 2)), prompt(20, 2)
    expected = model.perceiver.score({"input_ids": ids})
    output = model(ids)
    assert output.get(CACHE) is None
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(model(ids, logits_to_keep=3).logits, expected[:, -3:], rtol=0, atol=1e-12)
    padded = torch.cat([torch.full((2, 3), PAD), ids], dim=1)
    found = model(padded, (padded != PAD).long(), logits_to_keep=20).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert model(ids, return_dict=False)[0].shape == expected.shape


def test_loss_is_that_of_the_next_tokens():
    model, ids = make((12, 4, 2), prefix_dropout=0.0), prompt(12, 2)
    labels = ids.clone()
    labels[0, 5] = -100
    expected = nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert model(ids, labels=labels).loss == pytest.approx(float(expected), rel=1e-6)
    model.train()
    output = model(ids, labels=labels)
    assert output.logits.shape == (2, 4, NUM_TOKENS + 1)  # of the latents
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    expected = nn.functional.cross_entropy(output.logits.detach()[:, :-1].flatten(0, 1), ids[:, 9:].flatten())
    assert output.loss.item() == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda model, ids: model(ids, output_attentions=True),
            ValueError,
            "output_attentions: not available for caus",
        ),
        (lambda model, ids: model(ids, output_hidden_states=True), ValueError, "output_hidden_states: not available"),
        (lambda model, ids: model(ids, token_types=ids), TypeError, "unexpected keyword argument 'token_types'"),
        (lambda model, ids: generated(model, ids, cache_implementation="static"), ValueError, "'static': must be None"),
        (lambda model, ids: generated(model, ids, **{CACHE: DynamicCache()}), ValueError, "must be a ZooCache"),
        (
            lambda model, ids: model(ids, (torch.arange(5) < 3).long()[None], use_cache=True),
            ValueError,
            "pad on the le",
        ),
    ],
)
def test_unsupported_uses_are_reported(use: Callable[..., Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        use(make((12, 4, 2)), prompt(5))


def test_latents_and_checkpointing():
    model, ids = make((12, 4, 2)), prompt(9)
    latents = ZooModel(model.config).double().eval()
    latents.perceiver.load_state_dict(model.perceiver.state_dict())
    output = latents(input_ids=ids)
    assert output.last_hidden_state.shape == (1, 4, 16)
    torch.testing.assert_close(output.output, model.perceiver({"input_ids": ids}), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="output_attentions: not available"):
        latents(input_ids=ids, output_attentions=True)
    gradients = []
    for _ in range(2):
        model.train().zero_grad()
        torch.manual_seed(0)
        model(ids, labels=ids).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    for plain, recomputed in itertools.zip_longest(*gradients):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=1e-12)


def test_other_classes_are_refused():
    model = make((12, 4, 2))
    with pytest.raises(UserError, match="must be loaded as ZooForCausalLM, not ZooForMaskedLM"):
        ZooForMaskedLM(model.config)
