"""Places of a composite's inputs that are hidden from the encoder."""

from __future__ import annotations

import pytest
import torch

from perceiver_plugins.composite import CompositeEncoderConfig, CompositeInputAdapter
from perceiver_registry import config_from_dict, config_to_dict, create_module

TEXT = {"adapter": "text", "vocab_size": 31, "max_seq_len": 9, "num_input_channels": 13}
TABLE = {"adapter": "table", "num_features": 5, "num_input_channels": 7}


def composite(**mask_probabilities: float) -> CompositeInputAdapter:
    config = CompositeEncoderConfig(inputs={"text": TEXT, "table": TABLE}, mask_probabilities=mask_probabilities)
    return CompositeInputAdapter.from_config(config)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    mask = torch.ones(500, 9, dtype=torch.long)
    mask[:, 7:] = 0
    return {"input_ids": torch.randint(31, (500, 9)), "attention_mask": mask, "inputs": torch.randn(500, 5)}


def test_each_place_is_hidden_with_its_modalitys_probability(batch):
    adapter, plain = composite(text=0.2), composite()
    plain.load_state_dict(adapter.state_dict(), strict=False)
    x, pad_mask, _ = adapter(batch)
    seen = plain(batch)
    hidden = (x == adapter.mask_tokens["text"]).all(dim=-1)
    assert not hidden[:, :5].any()
    assert hidden[:, 5:].float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(x[~hidden], seen.x[~hidden])
    assert torch.equal(pad_mask, seen.pad_mask)  # padding stays padding
    assert torch.equal(adapter.eval()(batch).x, seen.x)


def test_what_is_always_hidden_is_in_evaluation_too(batch):
    adapter = composite(table=1.0).eval()
    assert torch.equal(adapter(batch).x[:, :5], adapter.mask_tokens["table"].expand(500, 5, -1))


def test_without_masks_there_are_no_tokens():
    assert not composite().mask_tokens
    assert not any("mask" in name for name in composite().state_dict())
    assert [*composite(text=0.0).mask_tokens] == ["text"]


def test_vectors_that_never_count_require_no_gradient():
    def frozen(**probabilities: float) -> list[str]:
        parameters = composite(**probabilities).named_parameters()
        return [name for name, parameter in parameters if not parameter.requires_grad]

    assert frozen(text=0.5) == []
    assert frozen(text=0.0) == ["mask_tokens.text"]
    assert frozen(text=1.0) == ["embeddings.text"]


def test_probabilities_are_part_of_the_config():
    encoder = {"adapter": "composite", "inputs": {"text": TEXT, "table": TABLE}, "mask_probabilities": {"text": 0.3}}
    decoder = {"adapter": "regression", "num_output_query_channels": 8}
    config = config_from_dict({"encoder": encoder, "decoder": decoder, "num_latent_channels": 16})
    assert config_from_dict(config_to_dict(config)) == config
    assert create_module("regression", config).model.input_adapter.mask_probabilities == {"text": 0.3}


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [({"image": 0.5}, "there is no input 'image'"), ({"text": 1.2}, "must be from 0 to 1")],
)
def test_wrong_probabilities_are_named(probabilities, message):
    with pytest.raises(ValueError, match=rf"CompositeEncoderConfig.mask_probabilities=.*: {message}"):
        composite(**probabilities)
