"""Masking in the composite input adapter."""

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


def test_positions_are_masked_with_the_given_probability_only_in_training(batch):
    adapter, plain = composite(text=0.2), composite()
    plain.load_state_dict(adapter.state_dict(), strict=False)
    x, pad_mask, _ = adapter(batch)
    unmasked = plain(batch)
    masked = (x == adapter.mask_tokens["text"]).all(dim=-1)
    assert not masked[:, :5].any()
    assert masked[:, 5:].float().mean().item() == pytest.approx(0.2, abs=0.02)
    assert torch.equal(x[~masked], unmasked.x[~masked])
    assert torch.equal(pad_mask, unmasked.pad_mask)
    assert torch.equal(adapter.eval()(batch).x, unmasked.x)


def test_probability_of_one_masks_in_evaluation(batch):
    adapter = composite(table=1.0).eval()
    assert torch.equal(adapter(batch).x[:, :5], adapter.mask_tokens["table"].expand(500, 5, -1))


def test_mask_tokens_only_exist_for_masked_modalities():
    assert not composite().mask_tokens
    assert not any("mask" in name for name in composite().state_dict())
    assert [*composite(text=0.0).mask_tokens] == ["text"]


def test_unused_vectors_require_no_gradient():
    def frozen(**probabilities: float) -> list[str]:
        parameters = composite(**probabilities).named_parameters()
        return [name for name, parameter in parameters if not parameter.requires_grad]

    assert frozen(text=0.5) == []
    assert frozen(text=0.0) == ["mask_tokens.text"]
    assert frozen(text=1.0) == ["embeddings.text"]


def test_probabilities_round_trip_through_the_configuration():
    encoder = {"adapter": "composite", "inputs": {"text": TEXT, "table": TABLE}, "mask_probabilities": {"text": 0.3}}
    decoder = {"adapter": "regression", "num_output_query_channels": 8}
    config = config_from_dict({"encoder": encoder, "decoder": decoder, "num_latent_channels": 16})
    assert config_from_dict(config_to_dict(config)) == config
    assert create_module("regression", config).model.input_adapter.mask_probabilities == {"text": 0.3}


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [({"image": 0.5}, "no such input: 'image'"), ({"text": 1.2}, "must be from 0 to 1")],
)
def test_invalid_probabilities_are_reported(probabilities, message):
    with pytest.raises(ValueError, match=rf"CompositeEncoderConfig.mask_probabilities=.*: {message}"):
        composite(**probabilities)
