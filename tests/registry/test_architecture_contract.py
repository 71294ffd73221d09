"""The contract of architectures: those of the repository fulfil it, and each check finds its fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from unittest import SkipTest

import pooling
import pytest
import torch
from pooling import POOLING, Pooling, PoolingConfig

from perceiver_core import Model, ModelConfig
from perceiver_registry import ModelSpec, UnknownNameError, hookimpl
from perceiver_registry.registry import _registry
from perceiver_registry.testing import architecture_checks, check_architecture, plugin_checks
from perceiver_registry.testing.checks import report


@pytest.mark.parametrize("check", [*architecture_checks("perceiver-io"), *architecture_checks(POOLING)])
def test_architectures_fulfil_the_contract(check):
    check()


class NoModel(torch.nn.Module):
    pass


class NoConfig(PoolingConfig):
    """Not a dataclass of its own."""


@dataclass
class NoParams(ModelConfig):
    """Config without a source of weights."""

    num_hidden_channels: int = 8


@dataclass
class Undocumented(PoolingConfig):
    """Config with a field that the help cannot explain."""

    other: int = 3


@dataclass
class WrongFields(PoolingConfig):
    """Config with a misspelt field."""

    decoder_fields = ("dropuot",)


class CopiesConfig(Pooling):
    def __init__(self, config, *adapters):
        super().__init__(replace(config), *adapters)


class NotFinite(Pooling):
    def compute(self, adapted, queries):
        return super().compute(adapted, queries) / 0


class Random(Pooling):
    def compute(self, adapted, queries):
        return torch.randn_like(super().compute(adapted, queries))


class MeanOfBatch(Pooling):
    def mean(self, adapted):
        return super().mean(adapted).mean(dim=0, keepdim=True).expand(len(adapted.x), -1)


class MeanOfQueries(Pooling):
    def compute(self, adapted, queries):
        decoded = super().compute(adapted, queries)
        return decoded + decoded.mean(dim=1, keepdim=True)


class IncludesPadding(Pooling):
    def mean(self, adapted):
        return adapted.x.mean(dim=1)


class NormalisesBatch(Pooling):
    def encode(self, batch):
        latents = super().encode(batch)
        return latents / latents.abs().max()


class VectorsOnly(Pooling):
    def encode(self, batch):
        return super().encode(batch)[:, 0]


class WithoutLatents(Pooling):
    encode = Model.encode


class SinglePrecision(Pooling):
    def mean(self, adapted):
        return super().mean(adapted).float()


class StrayTensor(Pooling):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.scale = torch.ones(1)


class RandomState(Pooling):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.shift = float(torch.randn(()))

    def mean(self, adapted):
        return super().mean(adapted) + self.shift


class Lambda(Pooling):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.function = lambda x: x


class Detached(Pooling):
    def mean(self, adapted):
        return super().mean(adapted).detach()


class ReadsValues(Pooling):
    def mean(self, adapted):
        mean = super().mean(adapted)
        return mean * (2.0 if float(mean.sum()) > 0 else 1.0)


def faulty(model=None, config=None, **fields):
    """Return the spec with another model or config."""
    paths = {"model": model, "config": config}
    return replace(
        POOLING, **{name: f"{__name__}:{cls.__name__}" for name, cls in paths.items() if cls is not None}, **fields
    )


@pytest.mark.parametrize(
    ("name", "spec", "problem"),
    [
        ("architecture_is_valid", faulty(summary="two\nlines"), "must be one line"),
        ("architecture_is_valid", replace(POOLING, model="pooling:Poling"), "cannot be imported"),
        ("architecture_is_valid", faulty(NoModel), "is not a subclass of Model"),
        ("architecture_is_valid", faulty(config=NoConfig), "not decorated with @dataclass"),
        ("architecture_is_valid", faulty(config=NoParams), "no field params: str | None = None"),
        ("architecture_is_valid", faulty(config=WrongFields), "'dropuot', which is not a field of DecoderConfig"),
        ("architecture_fields_are_flags", faulty(config=Undocumented), "'other' is not documented"),
        ("architecture_fields_are_flags", faulty(example={"model.hidden": 3}), "no field 'hidden'"),
        ("architecture_builds", faulty(CopiesConfig), "the model's config is not the argument"),
        ("output_is_finite", faulty(NotFinite), "not finite"),
        ("is_deterministic", faulty(Random), "two runs differ"),
        ("examples_are_independent", faulty(MeanOfBatch), "depends on the rest of its batch"),
        ("embeddings_are_independent", faulty(NormalisesBatch), "embedding depends on the rest of its batch"),
        ("embeddings_are_independent", faulty(VectorsOnly), "latents of shape (3, 16)"),
        ("positions_are_independent", faulty(MeanOfQueries), "differs from the whole output"),
        ("output_ignores_padding", faulty(IncludesPadding), "depends on the content of padding"),
        ("follows_dtype", faulty(SinglePrecision), "must have the same dtype"),
        ("follows_device", faulty(StrayTensor), "scale has a tensor that is neither a parameter nor a buffer"),
        ("state_dict_restores", faulty(RandomState), "the same state has another output"),
        ("can_be_copied", faulty(Lambda), "pickle fails"),
        ("gradients_reach_parameters", faulty(Detached), "no gradient reaches input_adapter.positions"),
        ("exports", faulty(ReadsValues), ""),
    ],
)
def test_each_check_finds_its_fault(name, spec, problem):
    check = next(each for each in architecture_checks(spec) if each.name == name)
    with pytest.raises(AssertionError) as error:
        check()
    assert problem in str(error.value)
    with pytest.raises(AssertionError, match=f"architecture 'pooling': {name}: "):
        check_architecture(spec)


def test_architecture_without_latents_is_valid():
    (check,) = (each for each in architecture_checks(faulty(WithoutLatents)) if each.name.startswith("embeddings"))
    assert isinstance(check.outcome, SkipTest)


def test_checks_can_be_skipped():
    check_architecture(faulty(MeanOfQueries), skip={"positions_are_independent"})
    with pytest.raises(UnknownNameError, match="skip: unknown check 'positions'"):
        check_architecture(POOLING, skip={"positions"})
    with pytest.raises(UnknownNameError, match="unknown architecture 'poling'"):
        check_architecture("poling")


@pytest.mark.slow
def test_plugin_with_an_architecture_and_its_task_fulfils_the_contract(monkeypatch):
    monkeypatch.setenv("PERCEIVER_PLUGIN_FILES", pooling.__file__)
    checks = plugin_checks(pooling, skip={"imports_are_light"})  # the architecture is in the same file
    assert {check.name for check in architecture_checks(POOLING)} <= {check.name for check in checks}
    report(checks)
    assert next(check for check in checks if check.name == "tasks_train").outcome is None


@pytest.fixture
def uncached() -> Iterator[None]:
    """Discover plugins anew in a test, and after it."""
    _registry.cache_clear()
    yield
    _registry.cache_clear()


@pytest.mark.usefixtures("uncached")
@pytest.mark.parametrize(
    ("name", "hook", "value", "problem"),
    [
        ("task_defaults_are_valid", "perceiver_tasks", {"architecture": "poling"}, "'poling' does not exist"),
        ("models_match_specs", "perceiver_models", {"architecture": "poling"}, "'poling': unknown architecture"),
        ("models_match_specs", "perceiver_models", {"num_latents": 3}, "no field 'num_latents'"),
        ("models_match_specs", "perceiver_models", {"encoder.dropout": 0.1}, "has no effect in this architecture"),
        ("models_match_specs", "perceiver_models", {"num_hidden_channels": 8}, None),
    ],
)
def test_names_of_architectures_are_checked(monkeypatch, name, hook, value, problem):
    monkeypatch.setenv("PERCEIVER_PLUGIN_FILES", pooling.__file__)
    if hook == "perceiver_tasks":
        specs = [replace(*pooling.perceiver_tasks(), **value)]
    else:
        image = {"encoder": "image-pixels", "decoder": "classification", "decoder.num_classes": 3}
        config = {"architecture": "pooling", **image, **value}
        specs = [ModelSpec("small", "classification", config, 5_427, "a small model")]
    monkeypatch.setattr(pooling, hook, hookimpl(specname=hook)(lambda: specs), raising=False)
    check = next(each for each in plugin_checks(pooling) if each.name == name)
    if problem is None:
        check()
    else:
        with pytest.raises(AssertionError, match=problem):
            check()
