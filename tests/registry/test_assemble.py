"""Assembly of models from configs, and conversion of configs to plain data and back."""

from __future__ import annotations

import json

import pytest
import torch

from perceiver_core import PerceiverIO
from perceiver_plugins.text.adapters import TextInputAdapter, TiedTextOutputAdapter
from perceiver_registry import UnknownNameError, UserError, assemble, config_from_dict, config_to_dict


def test_assembled_model_has_the_adapters_of_its_config(text_config):
    model = assemble(text_config())
    assert type(model) is PerceiverIO
    assert type(model.input_adapter) is TextInputAdapter
    assert type(model.output_adapter) is TiedTextOutputAdapter
    assert model({"input_ids": torch.randint(37, (2, 23))}).shape == (2, 23, 37)


def test_config_round_trips_through_plain_data(text_config):
    config = text_config({"freeze": True, "dropout": 0.25}, {"num_output_query_channels": 12}, init="local")
    plain = json.loads(json.dumps(config_to_dict(config)))
    assert plain["encoder"]["adapter"] == plain["decoder"]["adapter"] == "text"
    assert config_from_dict(plain) == config


def test_omitted_values_take_their_defaults(text_config):
    plain = {"encoder": {"adapter": "text", "vocab_size": 9}, "decoder": {"adapter": "text"}, "num_latents": 3}
    config = config_from_dict(plain)
    assert (config.encoder.vocab_size, config.encoder.max_seq_len, config.num_latents) == (9, 512, 3)
    assert plain["encoder"] == {"adapter": "text", "vocab_size": 9}  # left as it was


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("num_latent",), 3, r"model has no field 'num_latent'; did you mean 'num_latents'"),
        (("encoder", "vocab_sice"), 3, r"encoder has no field 'vocab_sice'; did you mean 'vocab_size'"),
        (("decoder", "num_output_queries"), 3, r"decoder has no field .*'num_output_query_channels'"),
        (("encoder", "adapter"), "txt", r"unknown input adapter 'txt'; did you mean 'text'"),
        (("decoder", "adapter"), "texts", r"unknown output adapter 'texts'; did you mean 'text'"),
        (("encoder",), {"vocab_size": 3}, r"the model's encoder names no adapter"),
        (("decoder",), None, r"the model's decoder names no adapter"),
    ],
)
def test_unknown_names_are_rejected_with_suggestions(text_config, path, value, message):
    plain = config_to_dict(text_config())
    target = plain
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(UserError, match=message) as error:
        config_from_dict(plain)
    assert "\n" not in str(error.value)


def test_uninstalled_adapter_is_an_unknown_name(text_config):
    plain = config_to_dict(text_config())
    plain["encoder"]["adapter"] = "spectrogram"
    with pytest.raises(UnknownNameError):
        config_from_dict(plain)


def test_values_out_of_range_are_rejected(text_config):
    plain = config_to_dict(text_config())
    plain["encoder"]["dropout"] = 2.0
    with pytest.raises(ValueError, match=r"TextEncoderConfig\.dropout=2\.0"):
        config_from_dict(plain)
