"""Hashed n-grams and token dropout of the text input adapter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from perceiver_plugins.text.adapters import HASH_MODULUS, HASH_MULTIPLIER, NgramEmbedding, TextInputAdapter
from perceiver_plugins.text.config import TextEncoderConfig


def bucket(ngram: tuple[int, ...], num_buckets: int) -> int:
    """Return the bucket of an n-gram, last token first, with exact integers."""
    value = ngram[0] + 1
    for length, token in enumerate(ngram[1:], start=2):
        value = (value * HASH_MULTIPLIER + token + 1 + length) % HASH_MODULUS
    return value % num_buckets


@pytest.fixture
def embedding(randomise) -> NgramEmbedding:
    return randomise(NgramEmbedding(max_ngram_length=3, num_buckets=17, num_channels=5))


def test_ngrams_are_summed(embedding):
    tokens = [30, 2**20, 0, 7, 30]
    before = [-1, -1, *tokens]  # n-grams that begin before the sequence
    expected = torch.stack(
        [
            sum(embedding.embedding.weight[bucket(tuple(before[i + 2 - k] for k in range(n)), 17)] for n in (2, 3))
            for i in range(len(tokens))
        ]
    )
    torch.testing.assert_close(embedding(torch.tensor([tokens]))[0], expected)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_side_of_the_padding_has_no_effect(embedding, length):
    tokens = torch.randint(100, (2, length))
    padding, pad_mask = torch.full((2, 4), 9), torch.zeros(2, length, dtype=torch.bool)
    full = torch.ones(2, 4, dtype=torch.bool)
    left = embedding(torch.cat([padding, tokens], 1), torch.cat([full, pad_mask], 1))[:, 4:]
    right = embedding(torch.cat([tokens, padding], 1), torch.cat([pad_mask, full], 1))[:, :length]
    torch.testing.assert_close(left, embedding(tokens), rtol=0, atol=0)
    torch.testing.assert_close(right, embedding(tokens), rtol=0, atol=0)


def test_ngrams_with_a_hidden_token_are_left_out(embedding):
    tokens = torch.randint(100, (1, 8))
    keep = torch.tensor([[1, 1, 1, 0, 1, 1, 1, 1]]).bool()
    pairs = NgramEmbedding(2, 17, 5)
    pairs.load_state_dict(embedding.state_dict())
    found, whole = embedding(tokens, keep=keep), embedding(tokens)
    assert not found[0, 3:5].any()
    torch.testing.assert_close(found[0, 5], pairs(tokens)[0, 5])  # its n-gram of three tokens has the hidden one
    torch.testing.assert_close(found[0, [0, 1, 2, 6, 7]], whole[0, [0, 1, 2, 6, 7]])


def text_adapter(**options) -> TextInputAdapter:
    return TextInputAdapter.from_config(
        TextEncoderConfig(vocab_size=50, max_seq_len=40, num_input_channels=6, **options)
    )


def embed(adapter: TextInputAdapter, input_ids: Tensor) -> Tensor:
    """Embed tokens without their positions."""
    return adapter({"input_ids": input_ids}).x - adapter.position_embedding.weight[: input_ids.shape[1]]


def test_new_ngrams_add_nothing_before_training():
    input_ids = torch.randint(50, (3, 11))
    adapter = text_adapter(max_ngram_length=4, num_ngram_buckets=7)
    torch.testing.assert_close(embed(adapter, input_ids), adapter.token_embedding(input_ids))


def test_token_dropout_hides_tokens_in_training_alone(randomise):
    adapter = randomise(text_adapter(token_dropout=0.3, max_ngram_length=2, num_ngram_buckets=31))
    input_ids = torch.randint(50, (64, 40))
    hidden = (embed(adapter.train(), input_ids).abs() < 1e-6).all(-1)
    assert hidden.float().mean() == pytest.approx(0.3, abs=0.04)
    adapter.eval()
    expected = adapter.token_embedding(input_ids) + adapter.ngram_embedding(input_ids)
    torch.testing.assert_close(embed(adapter, input_ids), expected)


@pytest.mark.parametrize(
    ("field", "value"), [("max_ngram_length", 0), ("num_ngram_buckets", 0), ("token_dropout", 1.0)]
)
def test_invalid_values_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field}={value}"):
        TextEncoderConfig(**{field: value})
