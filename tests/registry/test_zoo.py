"""Python API of the zoo."""

from __future__ import annotations

import pytest
import torch
import transformers

from perceiver_registry import (
    UnknownNameError,
    UserError,
    assemble,
    config_from_dict,
    create_model,
    describe,
    from_hugging_face,
    list_models,
    load_model,
    registry,
    to_hugging_face,
)
from perceiver_registry.zoo import model_config

SMALL = {"num_latents": 3, "num_latent_channels": 16}
CLASSIFIER = {"num_output_query_channels": 16, "num_cross_attention_qk_channels": 16}


def num_parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_models_are_listed_by_pattern():
    assert list_models("vision*") == [f"vision-perceiver-{name}" for name in ("conv", "fourier", "learned")]
    assert set(list_models(pretrained=True)) < set(list_models())
    assert "mnist-classifier" in set(list_models()) - set(list_models(pretrained=True))
    assert list_models("nothing*") == []


@pytest.mark.slow
def test_named_model_matches_its_spec():
    for name in list_models():
        entry = registry().get("model", name)
        with torch.device("meta"):
            assert num_parameters(create_model(name)) == entry.spec.num_parameters, name


def test_fields_are_overridden():
    model = create_model("mnist-classifier", num_latents=5, decoder={"num_classes": 26}, encoder={"dropout": 0.3})
    assert model.config.num_latents == 5
    assert (model.config.encoder.dropout, model.config.decoder.num_classes) == (0.3, 26)
    plain = model_config(registry().get("model", "mnist-classifier"))
    assert model.config.encoder.max_resolution == plain.encoder.max_resolution
    batch = {"pixel_values": torch.randn(2, 1, 28, 28)}
    assert model(batch).shape == (2, 26)


def test_invalid_arguments_are_errors():
    with pytest.raises(UnknownNameError, match="unknown model 'mnist-clasifier'; did you mean 'mnist-classifier'"):
        create_model("mnist-clasifier")
    with pytest.raises(UserError, match="model has no field 'num_latent'; did you mean 'num_latents'"):
        create_model("mnist-classifier", num_latent=3)
    with pytest.raises(UserError, match="decoder has no field 'classes'"):
        create_model("mnist-classifier", decoder={"classes": 3})
    with pytest.raises(ValueError, match=r"Config.label_names: must be a list of texts or null, got 'abc'"):
        create_model("mnist-classifier", decoder={"num_classes": 3, "label_names": "abc"})
    with pytest.raises(ValueError, match=r"Config.share_repeated_layers: must be true or false, got 'no'"):
        create_model("mnist-classifier", encoder={"share_repeated_layers": "no"})
    with pytest.raises(
        UserError, match=r"'mnist-classifier' .* has no published weights; models with weights: language"
    ):
        create_model("mnist-classifier", pretrained=True)
    with pytest.raises(UserError, match=r"missing\.ckpt: no such checkpoint"):
        load_model("missing.ckpt")


@torch.no_grad()
def test_published_model_is_loaded_from_a_folder(randomise, tmp_path):
    config = transformers.PerceiverConfig(
        d_latents=16, num_latents=3, num_self_attends_per_block=1, num_cross_attention_heads=1, image_size=13
    )
    theirs = randomise(transformers.PerceiverForImageClassificationLearned(config)).eval()
    theirs.save_pretrained(tmp_path / "hub")
    ours = load_model(str(tmp_path / "hub"))
    images = torch.randn(2, 3, 13, 13)
    expected = theirs(pixel_values=images).logits
    torch.testing.assert_close(ours({"pixel_values": images}), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_checkpoint_is_loaded_with_its_weights(randomise, tmp_path):
    model = randomise(create_model("mnist-classifier", **SMALL, decoder=CLASSIFIER)).eval()
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    description = describe("image-classification", model.config)
    torch.save({"state_dict": state, "perceiver": description}, tmp_path / "a.ckpt")
    loaded = load_model(str(tmp_path / "a.ckpt"))
    assert not loaded.training
    batch = {"pixel_values": torch.randn(2, 1, 9, 7)}
    torch.testing.assert_close(loaded(batch), model(batch), rtol=0, atol=0)


CLASSES = {
    "PerceiverForMaskedLM": "language-perceiver",
    "PerceiverForSequenceClassification": "language-perceiver-classifier",
    "PerceiverForImageClassificationLearned": "vision-perceiver-learned",
    "PerceiverForImageClassificationFourier": "vision-perceiver-fourier",
    "PerceiverForImageClassificationConvProcessing": "vision-perceiver-conv",
    "PerceiverForOpticalFlow": "optical-flow-perceiver",
    "PerceiverForMultimodalAutoencoding": "multimodal-perceiver",
}


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "name"), CLASSES.items())
def test_published_architectures_round_trip(architecture, name):
    """Full size, without weights. The plugins' tests compare small models numerically."""
    with torch.device("meta"):
        model = create_model(name)
        theirs = to_hugging_face(model)
        assert type(theirs) is getattr(transformers, architecture)
        assert num_parameters(theirs) == num_parameters(model)
        again = from_hugging_face(theirs)
    assert {key: value.shape for key, value in again.state_dict().items()} == {
        key: value.shape for key, value in model.state_dict().items()
    }


def test_conversion_without_its_plugin_is_a_one_line_error(monkeypatch):
    monkeypatch.setenv("PERCEIVER_DISABLE_PLUGINS", "huggingface")
    with pytest.raises(
        UserError, match=r"converts models of transformers is not loaded; disabled plugins: huggingface$"
    ):
        to_hugging_face(create_model("mnist-classifier", num_latents=3))


@pytest.mark.slow
def test_unsupported_conversion_is_an_error():
    with pytest.raises(
        UserError, match=r"model: BertModel cannot be converted \(convertible classes: PerceiverForMaskedLM, "
    ):
        from_hugging_face(transformers.BertModel(transformers.BertConfig(num_hidden_layers=1)))
    with pytest.raises(ValueError, match=r"encoder.num_channels is 1, must be 3"):
        to_hugging_face(create_model("mnist-classifier", num_latents=3))
    odd = {"encoder": {"adapter": "text"}, "decoder": {"adapter": "token-classification"}}
    with pytest.raises(ValueError, match=r"its decoder has a TokenClassificationDecoderConfig, must be Text"):
        to_hugging_face(assemble(config_from_dict(odd)))
    table = {"encoder": {"adapter": "table", "num_features": 4}, "decoder": {"adapter": "classification"}}
    with pytest.raises(UserError, match=r"the input adapter 'table' .* cannot be converted to a class of transformers"):
        to_hugging_face(assemble(config_from_dict(table)))
