"""Conversion of text models from and to Hugging Face."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from torch import Tensor

from perceiver_core import PerceiverConfig
from perceiver_plugins.huggingface.conversion_table import conversion_at
from perceiver_plugins.huggingface.text import (
    MASKED_LM,
    SEQUENCE_CLASSIFICATION,
    convert_config,
)
from perceiver_plugins.text.model import LanguageModel
from perceiver_registry import UserError

BASE = {
    "vocab_size": 41,
    "max_position_embeddings": 19,
    "num_latents": 7,
    "d_latents": 20,
    "d_model": 16,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 5,
    "num_cross_attention_heads": 4,
    "attention_probs_dropout_prob": 0.2,
}
VARIANTS = {
    "kv-channels": {},
    "q-channels": {"cross_attention_shape_for_attention": "q"},
    "qk-and-v": {"qk_channels": 60, "v_channels": 20, "vocab_size": 300, "num_latents": 1},
    "qk-and-v-q-channels": {
        "qk_channels": 40,
        "v_channels": 20,
        "d_model": 72,
        "cross_attention_shape_for_attention": "q",
    },
    "qk-only": {"qk_channels": 20, "use_query_residual": False, "d_model": 8},
    "v-only": {"v_channels": 20, "num_blocks": 3, "self_attention_widening_factor": 2},
    "no-residual": {
        "use_query_residual": False,
        "num_blocks": 2,
        "cross_attention_widening_factor": 3,
        "cross_attention_shape_for_attention": "q",
        "num_self_attends_per_block": 3,
    },
    "one-of-each": {
        "num_self_attention_heads": 1,
        "num_cross_attention_heads": 1,
        "num_self_attends_per_block": 1,
        "max_position_embeddings": 33,
        "d_latents": 13,
        "cross_attention_widening_factor": 2,
    },
}


def relative_difference(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture
def peer(randomise):
    """Function that creates Hugging Face's model with random parameters, and BASE's config with changes."""

    def peer(**changes) -> transformers.PerceiverForMaskedLM:
        config = transformers.PerceiverConfig(**(BASE | changes))
        return randomise(transformers.PerceiverForMaskedLM(config)).eval()

    return peer


@pytest.fixture(params=list(VARIANTS))
def pair(request, peer) -> tuple[transformers.PerceiverForMaskedLM, LanguageModel]:
    """Hugging Face's model and the converted model."""
    hf_model = peer(**VARIANTS[request.param])
    model = LanguageModel(convert_config(hf_model.config)).eval()
    model.load_state_dict(MASKED_LM.from_state(model.config, hf_model.state_dict()))
    return hf_model, model


def padded_batch(config: transformers.PerceiverConfig, length: int) -> dict[str, Tensor]:
    attention_mask = torch.ones(3, length, dtype=torch.long)
    attention_mask[0, length - 4 :] = 0
    attention_mask[1, :3] = 0
    return {"input_ids": torch.randint(config.vocab_size, (3, length)), "attention_mask": attention_mask}


@torch.no_grad()
def test_logits_equal_those_of_hugging_face(pair):
    hf_model, model = pair
    for length in (hf_model.config.max_position_embeddings, 11):
        batch = padded_batch(hf_model.config, length)
        expected = hf_model(**batch).logits[:, :length]
        assert relative_difference(model(**batch), expected) < 1e-5
        input_ids = batch["input_ids"]
        assert relative_difference(model(input_ids), hf_model(input_ids).logits[:, :length]) < 1e-5
        assert relative_difference(model(input_ids), expected) > 1e-3  # padding affects the logits


@pytest.mark.parametrize("pair", ["kv-channels", "qk-and-v-q-channels", "no-residual"], indirect=True)
def test_gradients_equal_those_of_hugging_face(pair):
    hf_model, model = pair
    batch = padded_batch(hf_model.config, 11)
    hf_model(**batch).logits[:, :11].square().mean().backward()
    model(**batch).square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in hf_model.named_parameters()}
    expected = MASKED_LM.from_state(model.config, gradients)
    # Relative to the largest gradient, as the gradients of keys' biases are rounding errors around 0.
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad / scale, expected[name] / scale, atol=1e-6, rtol=1e-3)


def test_all_parameters_are_converted(pair):
    hf_model, model = pair
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in hf_model.parameters())
    assert set(MASKED_LM.from_state(model.config, hf_model.state_dict())) == set(model.state_dict())


@pytest.mark.parametrize(
    ("conversion", "variant"),
    [
        *((MASKED_LM, variant) for variant in VARIANTS),
        (SEQUENCE_CLASSIFICATION, "kv-channels"),
        (SEQUENCE_CLASSIFICATION, "no-residual"),
        (SEQUENCE_CLASSIFICATION, "one-of-each"),
    ],
    ids=lambda value: getattr(value, "kind", value),
)
@torch.no_grad()
def test_round_trip(conversion, variant, randomise):
    config = transformers.PerceiverConfig(**(BASE | VARIANTS[variant] | {"num_labels": 3}))
    hf_model = randomise(conversion.model_type(config)).eval()
    model = conversion.from_hugging_face(hf_model)
    batch = padded_batch(config, config.max_position_embeddings)
    expected = hf_model(**batch).logits
    assert relative_difference(model(batch), expected) < 1e-5
    randomise(model)
    changed = conversion.to_hugging_face(model)
    assert type(changed) is type(hf_model)
    assert changed.config.architectures == [conversion.architecture]
    assert relative_difference(changed(**batch).logits, model(batch)) < 1e-5
    assert relative_difference(model(batch), expected) > 1e-2


def test_class_names_round_trip():
    names = {0: "negative", 1: "positive", 2: "neither"}
    config = SEQUENCE_CLASSIFICATION.convert_config(transformers.PerceiverConfig(**BASE, id2label=names))
    assert config.decoder.label_names == list(names.values())
    assert SEQUENCE_CLASSIFICATION.hugging_face_config(config).id2label == names


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("encoder", "num_cross_attention_layers", 2, "encoder.num_cross_attention_layers is 2, must be 1"),
        ("encoder", "first_self_attention_block_shared", False, "must be True"),
        ("encoder", "share_repeated_layers", False, "encoder.share_repeated_layers is False, must be True"),
        ("encoder", "num_self_attention_v_channels", 40, "encoder.num_self_attention_v_channels is 40, must be 20"),
        ("encoder", "max_ngram_length", 2, "encoder.max_ngram_length is 2, must be 1"),
        ("encoder", "num_subword_buckets", 9, "encoder.num_subword_buckets is 9, must be 0"),
        ("decoder", "num_cross_attention_heads", 4, "decoder.num_cross_attention_heads is 4, must be 8"),
        ("decoder", "cross_attention_residual", True, "decoder.cross_attention_residual is True, must be False"),
        ("decoder", "num_output_query_channels", 16, "PerceiverForMaskedLM cannot express this model"),
    ],
)
def test_unsupported_configs_are_refused(part, field, value, message):
    config = convert_config(transformers.PerceiverConfig(**BASE | {"num_blocks": 2}))
    changed = replace(config, **{part: replace(getattr(config, part), **{field: value})})
    with pytest.raises(ValueError, match=message):
        MASKED_LM.to_hugging_face(LanguageModel(changed))


def test_training_options_are_ignored():
    config = convert_config(transformers.PerceiverConfig(**BASE))
    trained = PerceiverConfig(
        replace(config.encoder, freeze=True, token_dropout=0.1),
        config.decoder,
        num_latents=config.num_latents,
        num_latent_channels=config.num_latent_channels,
        init="local",
        activation_checkpointing=True,
    )
    assert convert_config(MASKED_LM.hugging_face_config(trained)) == config


def test_weight_sharing_flags_are_ignored_without_repetition():
    config = convert_config(transformers.PerceiverConfig(**BASE))
    flags = {
        "first_cross_attention_layer_shared": True,
        "first_self_attention_block_shared": False,
        "share_repeated_layers": False,
    }
    same = replace(config, encoder=replace(config.encoder, **flags))
    assert convert_config(MASKED_LM.hugging_face_config(same)) == config


@pytest.fixture
def folder(peer, tmp_path):
    """Folder in the hub's layout, and the model saved to it."""
    hf_model = peer(qk_channels=40, v_channels=20)
    hf_model.save_pretrained(tmp_path / "saved")
    return str(tmp_path / "saved"), hf_model


@pytest.mark.slow
@torch.no_grad()
def test_folder_in_hub_layout_is_loaded(folder):
    source, hf_model = folder
    config = convert_config(transformers.AutoConfig.from_pretrained(source))
    assert config.params == source
    batch = padded_batch(hf_model.config, 19)
    assert relative_difference(LanguageModel(config).eval()(**batch), hf_model(**batch).logits) < 1e-5
    conversion, found = conversion_at(source)
    assert conversion is MASKED_LM
    assert conversion.convert_config(found) == config


def test_params_can_be_given():
    fresh = transformers.PerceiverConfig(**BASE)
    assert convert_config(fresh, params="elsewhere").params == "elsewhere"
    assert convert_config(fresh).params is None


def test_dropout_and_initialisation_are_converted():
    config = convert_config(transformers.PerceiverConfig(**BASE, initializer_range=0.3))
    assert (config.encoder.dropout, config.decoder.dropout) == (0.2, 0.2)
    assert (config.encoder.init_scale, config.decoder.init_scale, config.init) == (0.3, 0.3, "normal")


def test_other_activations_are_refused():
    with pytest.raises(ValueError, match="hidden_act='relu'"):
        convert_config(transformers.PerceiverConfig(**BASE, hidden_act="relu"))


def assert_one_line_about(error: pytest.ExceptionInfo[UserError], source: str) -> None:
    assert source in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_folder_is_refused(tmp_path):
    source = str(tmp_path / "missing")
    with pytest.raises(UserError, match="cannot load a Perceiver") as error:
        conversion_at(source)
    assert_one_line_about(error, source)


def test_other_model_type_is_refused(tmp_path):
    transformers.BertConfig(num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"not a Perceiver \(model_type is 'bert'\)") as error:
        conversion_at(str(tmp_path))
    assert_one_line_about(error, str(tmp_path))
