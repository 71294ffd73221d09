"""Architectures: selection by the type of the model's config, plain configs, descriptions, and what refuses them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pooling
import pytest
import torch
from pooling import POOLING, Pooling, PoolingConfig

from perceiver_core import PerceiverConfig, PerceiverIO
from perceiver_plugins.classification import ClassificationDecoderConfig, LitClassifier
from perceiver_plugins.sdk.prediction import Predictor
from perceiver_plugins.text import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import (
    AmbiguousNameError,
    ArchitectureSpec,
    LoadedModel,
    ModelDescription,
    ModelSpec,
    Plugin,
    PluginError,
    Registry,
    TaskSpec,
    UnknownNameError,
    UserError,
    assemble,
    config_from_dict,
    config_to_dict,
    create_module,
    hookimpl,
    read_model,
    registry,
    to_hugging_face,
    write_model,
)
from perceiver_registry.zoo import model_config

FILE = Path(pooling.__file__)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Register the plugin, as ``--plugin`` does."""
    monkeypatch.setenv("PERCEIVER_PLUGIN_FILES", str(FILE))


@pytest.fixture
def config() -> PoolingConfig:
    encoder = TextEncoderConfig(vocab_size=20, max_seq_len=9, num_input_channels=10)
    decoder = ClassificationDecoderConfig(num_classes=3, num_output_query_channels=7)
    return PoolingConfig(encoder, decoder, num_hidden_channels=5)


@pytest.fixture
def perceiver_config() -> PerceiverConfig:
    encoder = TextEncoderConfig(vocab_size=20, max_seq_len=9, num_input_channels=10, num_cross_attention_heads=1)
    return PerceiverConfig(encoder, ClassificationDecoderConfig(num_cross_attention_heads=1), 3, 16)


def plugin(*specs: ArchitectureSpec) -> SimpleNamespace:
    """Return a plugin with architectures."""
    return SimpleNamespace(hook=hookimpl(specname="perceiver_architectures")(lambda: specs))


# Selection by type


def test_type_of_config_selects_the_architecture(config, perceiver_config):
    model = assemble(config)
    assert type(model) is Pooling
    assert model.config is config
    assert registry().architecture_of(config).spec is POOLING
    assert type(assemble(perceiver_config)) is PerceiverIO
    assert registry().architecture_of(perceiver_config).full_name == "perceiver-zoo:perceiver-io"


def test_unregistered_config_is_an_error(config):
    @dataclass
    class Unknown(PoolingConfig):
        pass

    unknown = Unknown(config.encoder, config.decoder)
    with pytest.raises(UnknownNameError, match=r"no plugin registers an architecture for test_arch.*Unknown"):
        assemble(unknown)


def test_plugins_cannot_replace_architectures_of_others(config):
    empty = Registry()
    empty.register(plugin(replace(POOLING, name="theirs", model="json:JSONDecoder")), Plugin("a", "a", "1"))
    assert empty.architecture_of(config).name == "theirs"
    empty.register(plugin(replace(POOLING, name="ours")), Plugin("b", "b", "1"))
    assert empty.architecture_of(config).name == "ours"
    empty.register(plugin(replace(POOLING, name="copy")), Plugin("c", "c", "1"))
    with pytest.raises(AmbiguousNameError, match=r"PoolingConfig is the config of c:copy and b:ours"):
        empty.architecture_of(config)


# Plain configs


@pytest.mark.parametrize("full_names", [False, True])
def test_plain_config_names_the_architecture(config, full_names):
    plain = config_to_dict(config, full_names)
    assert plain["architecture"] == "pooling"  # of a local file, which has no distribution
    assert plain["encoder"].keys() == {"adapter", *asdict(config.encoder)} - PoolingConfig.unused_fields("encoder")
    assert "num_cross_attention_heads" not in plain["encoder"]
    assert plain["encoder"]["init_scale"] == config.encoder.init_scale
    assert config_from_dict(plain) == config


def test_plain_config_of_the_default_architecture_is_unchanged(perceiver_config):
    plain = config_to_dict(perceiver_config)
    assert list(plain) == list(asdict(perceiver_config))
    assert config_from_dict(plain) == perceiver_config
    assert config_from_dict({**plain, "architecture": "perceiver-io"}) == perceiver_config
    assert config_from_dict({**plain, "architecture": None}) == perceiver_config


@pytest.mark.parametrize(
    ("part", "field", "message"),
    [
        (None, "num_latents", r"^model has no field 'num_latents'"),
        ("encoder", "num_self_attention_heads", r"^encoder\.num_self_attention_heads: has no effect in this arch"),
        ("decoder", "freeze", r"^decoder\.freeze: has no effect in this architecture \(leave it out\)$"),
        (None, "num_hiden_channels", r"did you mean 'num_hidden_channels'"),
        ("decoder", "num_hidden_channels", r"^decoder has no field 'num_hidden_channels'; did you mean num_hidden_ch"),
        (None, "architecture", r"unknown architecture 'poling'; did you mean 'pooling'"),
    ],
)
def test_fields_of_other_architectures_are_refused(config, part, field, message):
    plain = config_to_dict(config)
    (plain[part] if part else plain)[field] = "poling" if field == "architecture" else 8
    with pytest.raises(UserError, match=message):
        config_from_dict(plain)


def test_named_model_names_its_architecture():
    entry = registry().get("model", "mnist-classifier")
    fields = {"encoder": "image-pixels", "decoder": "classification", "decoder.num_classes": 3}
    spec = ModelSpec("m", "classification", {"architecture": "pooling", **fields}, 0, "small")
    found = model_config(replace(entry, spec=spec), num_hidden_channels=4)
    assert (type(found), found.num_hidden_channels) == (PoolingConfig, 4)
    assert type(model_config(replace(entry, spec=replace(spec, config=fields)))) is PerceiverConfig


# Descriptions


def test_description_names_the_architecture(config, perceiver_config):
    description = ModelDescription.create("text-classification", config)
    assert description.architecture == description.model["architecture"] == "pooling"
    used = [(each.kind, each.name, each.distribution) for each in description.plugins]
    assert ("architecture", "pooling", "pooling.py") in used
    found = ModelDescription.from_dict(description.to_dict(), "a.ckpt").prepare("a.ckpt")
    assert found.build_config("a.ckpt") == config

    default = ModelDescription.create("text-classification", perceiver_config)
    assert "architecture" not in default.model
    assert {each.kind for each in default.plugins} == {"task", "input", "output"}
    assert default.architecture == "perceiver-io"


@pytest.mark.parametrize(
    ("distribution", "version", "remedy"),
    [
        ("pooling.py", "local file", "a file that is not installed: give it with --plugin=PATH/pooling.py"),
        ("acme-pooling", "1.2", "1.2: pip install acme-pooling==1.2"),
    ],
)
def test_missing_architecture_is_one_line(config, monkeypatch, distribution, version, remedy):
    plain = ModelDescription.create("text-classification", config).to_dict()
    used = next(each for each in plain["plugins"] if each["kind"] == "architecture")
    used |= {"distribution": distribution, "version": version}
    monkeypatch.delenv("PERCEIVER_PLUGIN_FILES")
    with pytest.raises(PluginError) as error:
        ModelDescription.from_dict(plain, "a.ckpt").prepare("a.ckpt")
    assert str(error.value).startswith(f"a.ckpt: needs the architecture 'pooling' of {distribution}")
    assert str(error.value).endswith(remedy)


def test_damaged_name_is_reported(config):
    plain = ModelDescription.create("text-classification", config).to_dict()
    plain["model"]["architecture"] = 3
    with pytest.raises(UserError, match=r"^a\.ckpt: .* is damaged: model\.architecture has the wrong type$"):
        ModelDescription.from_dict(plain, "a.ckpt")


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_models_are_written_and_read(config, tmp_path, suffix):
    loaded = LoadedModel(assemble(config).eval(), ModelDescription.create("text-classification", config))
    target = str(tmp_path / f"model{suffix}")
    assert write_model(loaded, target) == 0
    found = read_model(target).model
    assert type(found) is Pooling
    assert found.config == config
    again = assemble(replace(config, params=target))
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)
        assert torch.equal(again.state_dict()[name], value)


# Tasks


def test_task_of_any_architecture_is_created_and_restored(config, tmp_path):
    module = create_module("text-classification", config, label_smoothing=0.1)
    assert (type(module.model), module.config, module.label_smoothing) == (Pooling, config, 0.1)
    saved = {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict(), "perceiver": {"seed": 0}}
    torch.save(saved | {"pytorch-lightning_version": "2.6.0"}, tmp_path / "m.ckpt")
    loaded = LitClassifier.load_from_checkpoint(tmp_path / "m.ckpt", weights_only=True)
    assert loaded.config == config
    assert torch.equal(loaded.model.hidden.weight, module.model.hidden.weight)
    with pytest.raises(UserError, match=r"^num_latents: set it in PoolingConfig, if it has this field$"):
        LitClassifier.create(config, num_latents=3)


def test_module_that_takes_the_whole_config(config):
    class TakesConfig(LitClassifier):
        def __init__(self, config, optimizer=None, **options):
            super().__init__(config=config, optimizer=optimizer, **options)

    assert TakesConfig.create(config, patience=2).config == config


def test_default_architecture_of_a_task():
    assert TaskSpec("t", "a:B", "", data="d").architecture == "perceiver-zoo:perceiver-io"
    assert registry().get("task", "pooled-classification").spec.architecture == "pooling"


# Functions for Perceiver IO only


def test_functions_for_perceiver_io_refuse_other_architectures(config, tmp_path):
    needs = r": needs a model of architecture 'perceiver-io', got 'pooling'$"
    with pytest.raises(UserError, match=f"^conversion to a class of transformers{needs}"):
        to_hugging_face(assemble(config))
    loaded = LoadedModel(assemble(config).eval(), ModelDescription.create("text-classification", config))
    with pytest.raises(UserError, match=f"^conversion to a folder for transformers{needs}"):
        write_model(loaded, str(tmp_path / "folder"), "zoo")
    with pytest.raises(UserError, match=r"to a class of transformers: needs .*; conversion to a folder for transf"):
        write_model(loaded, str(tmp_path / "folder"))

    masked = replace(config, decoder=TextDecoderConfig(vocab_size=20, max_seq_len=9))
    with pytest.raises(UserError, match=f"^--task=mlm{needs}"):
        create_module("mlm", masked)

    class Silent(Predictor):
        answers = rows = None

    module = create_module("text-classification", config)
    with pytest.raises(UserError, match=f"^--attention{needs}"):
        Silent(module, None, attention="folder")

    module = create_module("text-classification", config, optimizer={"name": "AdamW", "layer_decay": 0.5})
    module.trainer = SimpleNamespace(
        precision="32-true", strategy=SimpleNamespace(restore_checkpoint_after_setup=False)
    )
    with pytest.raises(UserError, match=f"^--optimizer.layer_decay{needs}"):
        module.configure_optimizers()
