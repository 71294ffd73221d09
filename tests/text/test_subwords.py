"""Embeddings of the character n-grams of tokens."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from perceiver_plugins.sdk.data.files import Piece
from perceiver_plugins.text.adapters import TextInputAdapter
from perceiver_plugins.text.config import TextEncoderConfig
from perceiver_plugins.text.subwords import MAX_SUBWORDS, NO_SUBWORD, SubwordEmbedding, bucket_of, subwords
from perceiver_plugins.text.tokenizer_training import TokenizerTraining

TEXTS = ["the cat sat on the mat", "the cats sat on mats", "a cat, a mat: extraordinarily extraordinarily"]


@pytest.fixture(scope="module")
def tokenizer():
    return TokenizerTraining("word").train([Piece(text, True) for text in TEXTS])


def new_adapter(tokenizer, **options) -> TextInputAdapter:
    return TextInputAdapter.from_config(
        TextEncoderConfig(
            vocab_size=len(tokenizer), max_seq_len=9, num_input_channels=5, num_subword_buckets=101, **options
        )
    )


def test_subwords_are_ngrams_with_the_ends_of_the_token():
    assert list(subwords("Cat")) == ["<c", "ca", "at", "t>", "<ca", "cat", "at>", "<cat", "cat>"]
    assert list(subwords("a")) == ["<a", "a>", "<a>"]
    assert len(list(subwords("extraordinarily"))) == MAX_SUBWORDS


def test_embeddings_of_subwords_are_summed(tokenizer, randomise):
    embedding = randomise(SubwordEmbedding(len(tokenizer), 101, 5))
    embedding.read(tokenizer)
    words = ["cat", "mat", "extraordinarily"]
    expected = torch.stack(
        [sum(embedding.embedding.weight[bucket_of(ngram, 101)] for ngram in subwords(word)) for word in words]
    )
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(words)])
    torch.testing.assert_close(embedding(ids)[0], expected)
    special = torch.tensor(tokenizer.all_special_ids)
    assert not embedding(special[None]).any()


def test_buckets_are_those_of_earlier_versions():
    assert [bucket_of(ngram, 1000) for ngram in ("ca", "<é", "at>")] == [237, 254, 664]
    assert NO_SUBWORD not in {bucket_of(f"{number}", 7) for number in range(99)}


def test_new_models_read_the_subwords_of_the_data(tokenizer):
    adapter = new_adapter(tokenizer)
    adapter.check_data(SimpleNamespace(tokenizer=tokenizer))
    table = adapter.subword_embedding.buckets.clone()
    assert (table != NO_SUBWORD).any()
    other = new_adapter(tokenizer)
    other.load_state_dict(adapter.state_dict())  # no tokenizer is needed
    assert torch.equal(other.subword_embedding.buckets, table)
    other.check_data(SimpleNamespace())


def test_data_without_a_tokenizer_is_refused(tokenizer):
    with pytest.raises(ValueError, match="num_subword_buckets: the data has no tokenizer"):
        new_adapter(tokenizer).check_data(SimpleNamespace())


def test_untrained_subwords_add_nothing(tokenizer):
    adapter = new_adapter(tokenizer)
    adapter.subword_embedding.read(tokenizer)
    ids = torch.randint(len(tokenizer), (3, 9))
    expected = adapter.token_embedding(ids) + adapter.position_embedding.weight
    torch.testing.assert_close(adapter({"input_ids": ids}).x, expected)


def test_subwords_are_hidden_independently_in_training_alone(tokenizer):
    embedding = SubwordEmbedding(len(tokenizer), 101, 1)
    embedding.read(tokenizer)
    nn.init.ones_(embedding.embedding.weight)
    ids = torch.full((200, 9), tokenizer.convert_tokens_to_ids("cat"))
    assert (embedding(ids) == 9).all()
    kept = embedding(ids, dropout=0.3).detach()
    assert kept.mean() == pytest.approx(0.7 * 9, abs=0.2)
    assert len(kept.unique()) > 4


@pytest.mark.parametrize("value", [1, -1])
def test_too_few_buckets_are_refused(value):
    with pytest.raises(ValueError, match=f"num_subword_buckets={value}"):
        TextEncoderConfig(num_subword_buckets=value)
