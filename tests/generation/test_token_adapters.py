"""Adapters of causal models of tokens."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from perceiver_plugins.generation import (
    NextTokenDecoderConfig,
    NextTokenOutputAdapter,
    TokenEncoderConfig,
    TokenInputAdapter,
)
from perceiver_plugins.text import TextInputAdapter


def test_embedding_of_a_token_depends_on_it_alone() -> None:
    adapter = TokenInputAdapter.from_config(TokenEncoderConfig(vocab_size=11, num_input_channels=5))
    ids = torch.randint(11, (2, 7))
    whole = adapter({"input_ids": ids})
    assert whole.pad_mask is None
    for index in range(7):
        assert torch.equal(adapter({"input_ids": ids[:, index : index + 1]}).x[:, 0], whole.x[:, index])
    padded = adapter({"input_ids": ids, "attention_mask": torch.tensor([[0] * 3 + [1] * 4, [1] * 7])})
    assert padded.pad_mask is not None
    assert padded.pad_mask.sum(dim=1).tolist() == [3, 0]


@pytest.mark.parametrize(("tied", "bias"), [(True, True), (False, True), (True, False)])
def test_logits(tied: bool, bias: bool) -> None:
    adapter = TokenInputAdapter(11, 5)
    output = NextTokenOutputAdapter.from_config(NextTokenDecoderConfig(tied=tied, bias=bias), adapter)
    weight = output.embedding.weight
    assert (weight is adapter.token_embedding.weight) == tied
    assert len(list(output.parameters())) == 1 + bias
    if output.bias is not None:
        torch.nn.init.normal_(output.bias)
    x = torch.randn(2, 3, 5)
    expected = x @ weight.T + (0 if output.bias is None else output.bias)
    torch.testing.assert_close(output(x), expected)


def test_mismatches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the data's vocab_size=12 does not fit the model's vocab_size=11 \("):
        TokenInputAdapter(11, 5).check_data(SimpleNamespace(vocab_size=12))
    TokenInputAdapter(11, 5).check_data(SimpleNamespace(vocab_size=11))
    with pytest.raises(ValueError, match="needs an input adapter of tokens, got TextInputAdapter"):
        NextTokenOutputAdapter.from_config(NextTokenDecoderConfig(), TextInputAdapter(11, 4, 5))
    with pytest.raises(ValueError, match="vocab_size"):
        TokenEncoderConfig(vocab_size=0)
