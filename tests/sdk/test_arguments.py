"""Arguments of Lightning modules: the fields of a model's config, and the whole config as in earlier versions."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from perceiver_core import PerceiverConfig
from perceiver_plugins.sdk.tasks import LitPerceiver
from perceiver_plugins.text import LitLanguageModel, TextDecoderConfig, TextEncoderConfig
from perceiver_registry import create_module, registry

SGD = {"name": "SGD", "lr": 0.5}


class TakesConfig(LitLanguageModel):
    """Plugin module for interface 1."""

    def __init__(self, config: Any, optimizer: Any = None, extra: int = 1, **kwargs: Any):
        super().__init__(config, optimizer=optimizer, **kwargs)
        self.extra = extra


class PassesOn(LitLanguageModel):
    """Plugin module that forwards unknown arguments."""

    def __init__(self, *args: Any, extra: int = 1, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.extra = extra


class IsExplicit(LitPerceiver):
    """Module with only its own arguments.

    Args:
        encoder: of text.
        extra: a number.

    Raises:
        UserError: never.
    """

    task = "mlm"

    def __init__(self, encoder: TextEncoderConfig, decoder: TextDecoderConfig, num_latents: int = 8, extra: int = 1):
        super().__init__(encoder, decoder, num_latents, num_latent_channels=20, optimizer=SGD)
        self.extra = extra


@pytest.fixture
def config(tiny_config: Callable[..., PerceiverConfig]) -> PerceiverConfig:
    return tiny_config(num_latents=8, num_latent_channels=20)


@pytest.mark.parametrize("module_type", [LitLanguageModel, PassesOn, TakesConfig])
def test_whole_config_is_accepted_with_a_warning(config, module_type):
    with pytest.warns(DeprecationWarning, match=r"\(config\) is deprecated: use \w+.create\(config\)"):
        module = module_type(config, SGD)
    assert module.config == config
    assert module.optimizer_config == SGD
    with pytest.warns(DeprecationWarning, match="is deprecated"):
        assert module_type(config=config).config == config


@pytest.mark.parametrize("module_type", [LitLanguageModel, PassesOn])
def test_create_from_config(config, module_type):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        module = module_type.create(config, optimizer=SGD)
        assert create_module("mlm", config).config == config
    assert module.config == config
    assert module.optimizer_config == SGD


def test_create_passes_config_to_modules_that_take_it(config):
    with pytest.warns(DeprecationWarning, match="TakesConfig"):
        module = TakesConfig.create(config, extra=3)
    assert (module.config, module.extra) == (config, 3)


@pytest.mark.parametrize("module_type", [LitLanguageModel, PassesOn, TakesConfig, IsExplicit])
def test_load_from_checkpoint(config, module_type, tmp_path):
    if module_type is IsExplicit:
        module = module_type(config.encoder, config.decoder, extra=2)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = module_type.create(config, optimizer=SGD)
    saved = {"hyper_parameters": dict(module.hparams), "state_dict": module.state_dict(), "perceiver": {"seed": 0}}
    assert set(saved["hyper_parameters"]) == {"config", "optimizer", "lr_scheduler", "task"}  # as earlier versions
    torch.save(saved | {"pytorch-lightning_version": "2.6.0"}, tmp_path / "m.ckpt")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        loaded = module_type.load_from_checkpoint(tmp_path / "m.ckpt", weights_only=True)
    assert loaded.config == module.config
    assert loaded.optimizer_config == SGD
    for name, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


@pytest.mark.parametrize("task", registry().names("task"))
def test_modules_of_all_tasks_have_the_shared_arguments(task):
    shared = inspect.signature(LitPerceiver).parameters
    own = inspect.signature(registry().get("task", task).resolve("module")).parameters
    for name, parameter in shared.items():
        assert own[name].default == parameter.default, name
        assert own[name].kind == parameter.kind, name
    assert [*own][: len(shared)] == [*shared]
    model = inspect.signature(PerceiverConfig).parameters
    for name, parameter in model.items():
        assert shared[name].default == parameter.default, name


def test_docstrings_document_shared_arguments():
    documentation = inspect.getdoc(IsExplicit)
    assert documentation.count("    encoder:") == documentation.count("    num_latents:") == 1
    assert "    encoder: of text.\n    extra: a number.\n    decoder: " in documentation
    assert "    patience:" not in documentation  # it has no such argument
    assert documentation.endswith("num_latents: length of the latent array.\n\nRaises:\n    UserError: never.")
