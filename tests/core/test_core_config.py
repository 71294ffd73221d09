"""Invalid configurations are refused with the field and its value."""

from __future__ import annotations

import re

import pytest

from perceiver_core import DecoderConfig, EncoderConfig, PerceiverConfig

COUNTS = [
    "num_cross_attention_heads",
    "num_cross_attention_qk_channels",
    "num_cross_attention_v_channels",
    "cross_attention_widening_factor",
]
ENCODER_COUNTS = [
    *COUNTS,
    "num_cross_attention_layers",
    "num_self_attention_heads",
    "num_self_attention_qk_channels",
    "num_self_attention_v_channels",
    "num_self_attention_blocks",
    "self_attention_widening_factor",
]
CHANNELS = ["num_cross_attention_qk_channels", "num_cross_attention_v_channels"]
ENCODER_CHANNELS = [*CHANNELS, "num_self_attention_qk_channels", "num_self_attention_v_channels"]
REALS = [("dropout", -0.1), ("dropout", 1.0), ("dropout", float("nan")), ("init_scale", 0.0), ("init_scale", -1.0)]


def assert_refused(config_type: type, field: str, value: object, **others: object) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{config_type.__name__}.{field}={value!r}: must ")):
        config_type(**{field: value}, **others)


@pytest.mark.parametrize("field", sorted({*ENCODER_COUNTS} - {*ENCODER_CHANNELS}))
def test_missing_counts_are_refused(field):
    assert_refused(EncoderConfig, field, None)


@pytest.mark.parametrize("value", [None, -1])
def test_number_of_self_attention_layers_must_not_be_negative(value):
    assert_refused(EncoderConfig, "num_self_attention_layers_per_block", value)


@pytest.mark.parametrize("value", [0, -3])
@pytest.mark.parametrize(
    ("config_type", "field"),
    [(EncoderConfig, field) for field in ENCODER_COUNTS] + [(DecoderConfig, field) for field in COUNTS],
)
def test_counts_must_be_positive(config_type, field, value):
    assert_refused(config_type, field, value)


@pytest.mark.parametrize(
    ("config_type", "field"),
    [(EncoderConfig, field) for field in ENCODER_CHANNELS] + [(DecoderConfig, field) for field in CHANNELS],
)
def test_channels_must_be_divisible_by_the_heads(config_type, field):
    heads = "num_self_attention_heads" if "self" in field else "num_cross_attention_heads"
    assert_refused(config_type, field, 10, **{heads: 4})
    with pytest.raises(ValueError, match=f"{heads}=4"):
        config_type(**{field: 10, heads: 4})
    assert getattr(config_type(**{field: 12, heads: 4}), field) == 12


@pytest.mark.parametrize(("field", "value"), REALS)
@pytest.mark.parametrize("config_type", [EncoderConfig, DecoderConfig])
def test_probabilities_and_scales_must_be_in_range(config_type, field, value):
    assert_refused(config_type, field, value)


def test_each_cross_attention_layer_needs_a_self_attention_block():
    assert_refused(EncoderConfig, "num_cross_attention_layers", 3, num_self_attention_blocks=2)
    assert EncoderConfig(num_cross_attention_layers=2, num_self_attention_blocks=2)


@pytest.mark.parametrize(
    ("field", "value"), [("num_latents", 0), ("num_latent_channels", -8), ("init", "xavier"), ("init", None)]
)
def test_a_model_refuses_values_out_of_range(field, value):
    assert_refused(PerceiverConfig, field, value, encoder=EncoderConfig(), decoder=DecoderConfig())


@pytest.mark.parametrize("kind", ["cross", "self"])
def test_latent_channels_used_as_default_must_be_divisible_by_the_heads(kind):
    encoder = EncoderConfig(**{f"num_{kind}_attention_heads": 3})
    with pytest.raises(ValueError, match=rf"num_latent_channels=16: .*num_{kind}_attention_heads=3"):
        PerceiverConfig(encoder, DecoderConfig(), num_latent_channels=16)
    encoder = EncoderConfig(**{f"num_{kind}_attention_heads": 3, f"num_{kind}_attention_qk_channels": 6})
    assert PerceiverConfig(encoder, DecoderConfig(), num_latent_channels=16)
