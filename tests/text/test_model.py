"""Language model: sizes, shapes, tied weights, padding, decoding of selected positions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from perceiver_core import PerceiverConfig
from perceiver_plugins.huggingface.text import convert_config
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_plugins.text.model import LanguageModel
from perceiver_registry import registry


def named_config(name: str) -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
    """Config of a named model, from the dotted fields of its spec."""
    parts: dict[str, dict] = {"encoder": {}, "decoder": {}, "model": {}}
    for field, value in registry().get("model", name).spec.config.items():
        part, _, attribute = field.rpartition(".")
        parts[part or "model"][attribute] = value
    assert parts["model"].pop("encoder") == parts["model"].pop("decoder") == "text"
    return PerceiverConfig(
        TextEncoderConfig(**parts["encoder"]), TextDecoderConfig(**parts["decoder"]), **parts["model"]
    )


def published_config() -> PerceiverConfig[TextEncoderConfig, TextDecoderConfig]:
    return convert_config(
        transformers.PerceiverConfig(qk_channels=256, v_channels=1280), params="deepmind/language-perceiver"
    )


def test_named_model_equals_published_config():
    published = published_config()
    assert published.params == registry().get("model", "language-perceiver").spec.params
    assert named_config("language-perceiver") == dataclasses.replace(published, params=None)


@pytest.mark.parametrize(("tied", "length"), [(True, 1), (True, 23), (False, 8)])
def test_shape_of_logits(text_config, tied, length):
    model = LanguageModel(text_config(decoder={} if tied else {"num_output_query_channels": 14}))
    assert model(torch.randint(37, (3, length))).shape == (3, length, 37)


def test_too_long_input_is_refused(text_config):
    with pytest.raises(ValueError, match="length 24 is longer than max_seq_len=23"):
        LanguageModel(text_config())(torch.zeros(1, 24, dtype=torch.long))


def test_tied_logits_are_products_with_embedding(text_config, randomise):
    model = randomise(LanguageModel(text_config()))
    decoded = []
    model.decoder.register_forward_hook(lambda _, inputs, output: decoded.append(output))
    logits = model(torch.randint(37, (2, 9)))
    expected = decoded[0] @ model.input_adapter.token_embedding.weight.T + model.output_adapter.bias
    torch.testing.assert_close(logits, expected)
    assert model.output_adapter.bias.shape == (37,)


@pytest.mark.parametrize(
    ("freeze_encoder", "freeze_decoder", "embedding_learns"),
    [(True, False, False), (False, True, True), (True, True, False), (False, False, True)],
)
def test_tied_weights_with_freezing(text_config, freeze_encoder, freeze_decoder, embedding_learns):
    model = LanguageModel(text_config({"freeze": freeze_encoder}, {"freeze": freeze_decoder}))
    loss = model(torch.randint(37, (2, 9))).square().sum()
    if not (freeze_encoder and freeze_decoder):
        loss.backward()
    assert (model.output_adapter.embedding.weight.grad is not None) == embedding_learns
    assert (model.encoder.latents.grad is not None) == (not freeze_encoder)
    assert (model.output_adapter.bias.grad is not None) == (not freeze_decoder)


def test_logits_do_not_depend_on_padding(text_config, randomise):
    model = randomise(LanguageModel(text_config()))
    input_ids = torch.randint(37, (3, 12))
    attention_mask = torch.ones(3, 12, dtype=torch.long)
    attention_mask[0, 9:] = 0
    attention_mask[1, :5] = 0
    other_ids = torch.where(attention_mask.bool(), input_ids, (input_ids + 5) % 37)
    logits = model(input_ids, attention_mask)
    assert torch.equal(model(other_ids, attention_mask), logits)
    assert torch.equal(model(other_ids, attention_mask.bool()), logits)
    assert not torch.allclose(model(other_ids), model(input_ids))
    assert not torch.allclose(model(input_ids), logits)


def test_trailing_padding_can_be_removed(text_config, randomise):
    model = randomise(LanguageModel(text_config()))
    input_ids, attention_mask = torch.randint(37, (2, 12)), torch.ones(2, 12, dtype=torch.long)
    attention_mask[:, 8:] = 0
    torch.testing.assert_close(model(input_ids, attention_mask)[:, :8], model(input_ids[:, :8]), atol=1e-5, rtol=1e-5)


def test_loss_of_masked_positions_equals_that_of_decoding_all(text_config, randomise):
    model = randomise(LanguageModel(text_config()))
    decoded = []
    model.decoder.register_forward_hook(lambda _, inputs, output: decoded.append(tuple(output.shape[:2])))
    input_ids, labels = torch.randint(37, (3, 15)), torch.randint(37, (3, 15))
    labels[torch.rand(3, 15) < 0.7] = -100
    mask = labels != -100

    lazy = cross_entropy(model(input_ids, positions=mask), labels[mask])
    lazy_gradients = torch.autograd.grad(lazy, list(model.parameters()))
    full = cross_entropy(model(input_ids).transpose(1, 2), labels, ignore_index=-100)
    full_gradients = torch.autograd.grad(full, list(model.parameters()))
    assert decoded == [(3, int(mask.sum(1).max())), (3, 15)]
    torch.testing.assert_close(lazy, full)
    torch.testing.assert_close(lazy_gradients, full_gradients, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("shape", [(3, 14), (3, 16), (2, 15)])
def test_mask_of_wrong_shape_is_refused(text_config, shape):
    model = LanguageModel(text_config())
    with pytest.raises(ValueError, match=r"positions: .* the shape of input_ids, \(3, 15\), got"):
        model(torch.randint(37, (3, 15)), positions=torch.ones(shape, dtype=torch.bool))


def test_attention_is_returned_on_request(text_config):
    model = LanguageModel(text_config())
    input_ids = torch.randint(37, (2, 9))
    logits, attentions = model(input_ids, return_attention=True)
    torch.testing.assert_close(logits, model(input_ids), atol=1e-5, rtol=1e-5)
    assert attentions.encoder_cross[0].shape == (2, 3, 7, 9)
    assert attentions.decoder.shape == (2, 2, 9, 7)


@pytest.mark.parametrize("field", ["vocab_size", "max_seq_len", "num_input_channels"])
def test_encoder_sizes_below_one_are_refused(field):
    with pytest.raises(ValueError, match=rf"TextEncoderConfig\.{field}=0: must be at least 1"):
        TextEncoderConfig(**{field: 0})


@pytest.mark.parametrize("field", ["vocab_size", "max_seq_len", "num_output_query_channels"])
def test_decoder_sizes_below_one_are_refused(field):
    with pytest.raises(ValueError, match=rf"TextDecoderConfig\.{field}=-1: must be at least 1"):
        TextDecoderConfig(**{field: -1})


def test_tied_vocabularies_must_be_equal(text_config):
    with pytest.raises(ValueError, match=r"TextDecoderConfig\.vocab_size=38: must equal the encoder's, 37"):
        LanguageModel(text_config(decoder={"vocab_size": 38}))
    untied = text_config(decoder={"vocab_size": 38, "num_output_query_channels": 14})
    assert LanguageModel(untied)(torch.randint(37, (1, 4))).shape == (1, 4, 38)


def test_forward_hooks_of_position_embedding_take_effect(text_config):
    model = LanguageModel(text_config()).eval()
    tokens = torch.randint(37, (2, 9))
    expected = model.input_adapter.token_embedding(tokens)
    model.input_adapter.position_embedding.register_forward_hook(lambda module, inputs, output: 0.0 * output)
    torch.testing.assert_close(model.input_adapter({"input_ids": tokens}).x, expected)
