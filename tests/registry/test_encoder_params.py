"""Initialisation from a pretrained encoder of another task, and errors about weights that do not fit."""

from __future__ import annotations

import dataclasses

import pytest
import safetensors.torch
import torch
import transformers
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from perceiver_core import PerceiverConfig
from perceiver_plugins.classification.config import ClassificationDecoderConfig, TokenClassificationDecoderConfig
from perceiver_plugins.huggingface.text import convert_config
from perceiver_plugins.text import LitLanguageModel
from perceiver_plugins.text.model import LanguageModel
from perceiver_registry import UserError, assemble, config_from_dict, config_to_dict, create_module, describe
from perceiver_registry.params import MAX_LISTED, check_fits, load_encoder

SIZES = {
    "vocab_size": 41,
    "max_position_embeddings": 19,
    "num_latents": 7,
    "d_latents": 20,
    "d_model": 16,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 5,
    "num_cross_attention_heads": 4,
}

OF_ENCODER = ("input_adapter.", "encoder.")

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:.*LeafSpec.*")


@pytest.fixture
def language_model(text_config, randomise) -> LanguageModel:
    return randomise(LanguageModel(text_config()))


@pytest.fixture
def checkpoint(language_model, tmp_path) -> str:
    path = str(tmp_path / "mlm.ckpt")
    state = {f"model.{key}": value for key, value in language_model.state_dict().items()}
    torch.save({"state_dict": state, "perceiver": describe("mlm", language_model.config)}, path)
    return path


@pytest.fixture
def safetensors_file(language_model, tmp_path) -> str:
    path = str(tmp_path / "model.safetensors")
    safetensors.torch.save_model(language_model, path)
    return path


@pytest.fixture
def classifier_config(text_config):
    """Factory of configs of a classifier with the language model's encoder or another one."""

    def classifier_config(params: str | None = None, encoder=None, decoder=None, **values) -> PerceiverConfig:
        config = text_config({"params": params, **(encoder or {})}, **values)
        decoder = decoder or ClassificationDecoderConfig(1, num_classes=3, num_output_query_channels=6)
        return dataclasses.replace(config, decoder=decoder)

    return classifier_config


def encoder_of(model) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items() if key.startswith(OF_ENCODER)}


def refusal(config, source: str) -> str:
    """Return the error about a config, one line that names the source."""
    with pytest.raises(UserError) as error:
        assemble(config)
    message = str(error.value)
    assert "\n" not in message
    assert source in message
    return message


@pytest.mark.parametrize("source", ["checkpoint", "safetensors_file"])
@pytest.mark.parametrize(
    "decoder",
    [None, TokenClassificationDecoderConfig(2, num_classes=4)],
    ids=["classification", "token-classification"],
)
def test_encoder_and_input_adapter_are_loaded(language_model, classifier_config, source, decoder, request):
    config = classifier_config(request.getfixturevalue(source), decoder=decoder)
    torch.manual_seed(1)
    model = assemble(config)
    taken = encoder_of(model)
    assert len(taken) > 30
    torch.testing.assert_close(taken, encoder_of(language_model), rtol=0, atol=0)
    torch.manual_seed(1)
    fresh = assemble(classifier_config(decoder=decoder))
    rest = {key: value for key, value in fresh.state_dict().items() if key not in taken}
    torch.testing.assert_close({key: model.state_dict()[key] for key in rest}, rest, rtol=0, atol=0)
    assert any(key.startswith("decoder.") for key in rest)


def test_latents_equal_those_of_the_language_model(language_model, classifier_config, checkpoint):
    batch = {"input_ids": torch.randint(37, (2, 23)), "attention_mask": torch.arange(23).expand(2, -1) < 20}
    latents = [
        model.encoder(model.input_adapter(batch)) for model in (language_model, assemble(classifier_config(checkpoint)))
    ]
    torch.testing.assert_close(*latents, rtol=0, atol=0)


def test_tied_weights_are_loaded(language_model, text_config, safetensors_file):
    model = LanguageModel(text_config({"params": safetensors_file}))
    torch.testing.assert_close(encoder_of(model), encoder_of(language_model), rtol=0, atol=0)
    assert model.output_adapter.embedding.weight is model.input_adapter.token_embedding.weight
    assert not torch.equal(
        model.output_adapter.query_provider.queries, language_model.output_adapter.query_provider.queries
    )


def test_encoder_of_a_trained_checkpoint_is_loaded(tiny_run, text_config, classifier_config, tmp_path):
    """The checkpoint has averaged weights, which are loaded."""
    mlm = LitLanguageModel.create(text_config(), num_samples=0, ema_decay=0.5)
    fresh = encoder_of(mlm.model)
    ids = torch.randint(37, (8, 23))
    trainer = tiny_run(mlm, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids})
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    assert not torch.equal(encoder_of(mlm.model)["encoder.latents"], fresh["encoder.latents"])
    model = assemble(classifier_config(str(tmp_path / "trained.ckpt")))
    torch.testing.assert_close(encoder_of(model), encoder_of(mlm.model), rtol=0, atol=0)


@pytest.fixture
def tiny_run(tmp_path):
    """Function that trains a module for a few steps on the examples of a batch."""

    def tiny_run(module, batch) -> Trainer:
        examples = [{name: values[i] for name, values in batch.items()} for i in range(len(batch["labels"]))]
        trainer = Trainer(
            default_root_dir=tmp_path,
            accelerator="cpu",
            max_steps=4,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(examples, batch_size=4))
        return trainer

    return tiny_run


@pytest.mark.parametrize("ema_decay", [None, 0.999])
def test_frozen_encoder_is_not_trained(language_model, classifier_config, checkpoint, tiny_run, ema_decay):
    config = classifier_config(checkpoint, {"freeze": True})
    optimizer = {"name": "AdamW", "lr": 0.01, "weight_decay": 0.5}
    module = create_module("classification", config, optimizer=optimizer, ema_decay=ema_decay)
    before = {key: value.clone() for key, value in module.model.state_dict().items()}
    batch = {"input_ids": torch.randint(37, (16, 23)), "labels": torch.randint(3, (16,))}
    trainer = tiny_run(module, batch)
    after = module.model.state_dict()
    torch.testing.assert_close(encoder_of(module.model), encoder_of(language_model), rtol=0, atol=0)
    rest = [key for key in before if not key.startswith(OF_ENCODER)]
    # The bias of the keys has no effect on a softmax.
    unchanged = {key for key in rest if torch.equal(before[key], after[key])}
    assert unchanged <= {"decoder.cross_attention_layer.attention.k_proj.bias"}
    optimized = {id(parameter) for group in trainer.optimizers[0].param_groups for parameter in group["params"]}
    parameters = dict(module.model.named_parameters())
    assert optimized == {id(parameters[key]) for key in rest}


@pytest.fixture
def published(tmp_path):
    """Folder in the hub's layout with a masked language model, and the model."""
    model = transformers.PerceiverForMaskedLM(transformers.PerceiverConfig(**SIZES)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
    model.save_pretrained(tmp_path / "hub")
    return str(tmp_path / "hub"), model


def test_encoder_of_a_published_model_is_loaded(published):
    source, theirs = published
    whole = convert_config(transformers.PerceiverConfig(**SIZES))
    whole.encoder.params = source
    config = dataclasses.replace(whole, decoder=ClassificationDecoderConfig(1, num_classes=3), params=None)
    ours = assemble(config).eval()
    ids = torch.randint(41, (3, 17))
    mask = torch.arange(17) < torch.tensor([[17], [9], [1]])
    latents = ours.encoder(ours.input_adapter({"input_ids": ids, "attention_mask": mask}))
    expected = theirs.perceiver(inputs=ids, attention_mask=mask.float())
    torch.testing.assert_close(latents, expected.last_hidden_state, rtol=1e-4, atol=1e-5)


def test_mismatches_of_a_published_model_are_listed(published, classifier_config):
    message = refusal(classifier_config(published[0]), published[0])
    assert message.startswith(f"encoder.params={published[0]!r}: does not fit the model: ")
    assert "'input_adapter.token_embedding.weight' has shape (41, 16), the model's has (37, 18)" in message


def test_params_and_encoder_params_are_exclusive(classifier_config, checkpoint):
    config = dataclasses.replace(classifier_config(checkpoint), params=checkpoint)
    assert "model.params and model.encoder.params: set only one" in refusal(config, "")


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.ckpt", "missing-folder"])
def test_missing_params_source_is_rejected(classifier_config, tmp_path, name):
    refusal(classifier_config(str(tmp_path / name)), str(tmp_path / name))


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("content", [b"", b"no weights at all, but a text"])
def test_invalid_file_is_rejected(classifier_config, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "not a readable" in refusal(classifier_config(str(tmp_path / name)), name)


def test_different_number_of_layers_is_rejected(classifier_config, checkpoint):
    fewer = refusal(classifier_config(checkpoint, {"num_self_attention_layers_per_block": 1}), checkpoint)
    assert "'encoder.self_attention_blocks.0.1.norm.weight' is unknown" in fewer
    more = refusal(classifier_config(checkpoint, {"num_self_attention_layers_per_block": 3}), checkpoint)
    assert "'encoder.self_attention_blocks.0.2.norm.weight' is missing" in more


def test_different_shapes_are_listed(classifier_config, checkpoint):
    message = refusal(classifier_config(checkpoint, num_latents=8), checkpoint)
    assert message == (
        f"encoder.params={checkpoint!r}: does not fit the model: "
        "'encoder.latents' has shape (7, 15), the model's has (8, 15)"
    )


def test_encoder_of_another_modality_is_rejected(model_of_table, classifier_config, tmp_path):
    path = str(tmp_path / "table.safetensors")
    safetensors.torch.save_file(model_of_table, path)
    message = refusal(classifier_config(path), path)
    assert "'input_adapter.token_embedding.weight' is missing" in message


@pytest.fixture
def model_of_table(language_model) -> dict[str, torch.Tensor]:
    """Weights of the same model with an input adapter of another kind."""
    state = {key: value.clone() for key, value in language_model.state_dict().items()}
    renamed = {key.replace("token_embedding", "columns"): value for key, value in state.items()}
    assert renamed.keys() != state.keys()
    return renamed


def weights(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_matching_weights_are_accepted():
    check_fits(weights(a=(2, 3), b=(1,)), weights(b=(1,), a=(2, 3)), "source")


def test_shared_weights_may_be_stored_once():
    shared = torch.zeros(2)
    check_fits({"a": shared, "b": shared}, weights(a=(2,)), "source")
    check_fits({"a": shared, "b": shared}, weights(b=(2,)), "source")
    with pytest.raises(UserError, match=r"'a' is missing; 'b' is missing$"):
        check_fits({"a": shared, "b": shared}, {}, "source")


def test_mismatches_are_listed_up_to_a_maximum():
    expected, state = weights(a=(2,), b=(3,), c=(4,)), weights(a=(2,), c=(4, 1), d=(5,))
    with pytest.raises(UserError) as error:
        check_fits(expected, state, "file.ckpt")
    assert str(error.value) == (
        "file.ckpt: does not fit the model: 'b' is missing; 'd' is unknown; 'c' has shape (4, 1), the model's has (4,)"
    )
    many = weights(**{f"w{i}": (1,) for i in range(MAX_LISTED)})
    with pytest.raises(UserError) as error:
        check_fits(many, {}, "file.ckpt")
    assert str(error.value).count("is missing") == MAX_LISTED
    assert "more" not in str(error.value)
    for number in (1, 2):
        more = weights(**{f"more{i}": (1,) for i in range(number)})
        with pytest.raises(UserError, match=rf"; and {number} more$") as error:
            check_fits(many | more, {}, "file.ckpt")
        assert str(error.value).count("is missing") == MAX_LISTED


def test_source_may_lack_a_decoder(language_model, classifier_config, tmp_path):
    path = str(tmp_path / "encoder.safetensors")
    safetensors.torch.save_file(encoder_of(language_model), path)
    model = assemble(classifier_config())
    load_encoder(model, path)
    torch.testing.assert_close(encoder_of(model), encoder_of(language_model), rtol=0, atol=0)


def test_saved_model_does_not_need_the_source(classifier_config, checkpoint):
    config = classifier_config(checkpoint)
    assert config_from_dict(config_to_dict(config)) == config
    module = create_module("classification", config)
    assert module.hparams["config"]["encoder"]["params"] is None
    assert describe("classification", config)["model"]["encoder"]["params"] is None
