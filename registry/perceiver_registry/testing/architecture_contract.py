"""Checks of an architecture, in a small model with generic adapters. The docstring of a check is its description."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, asdict, fields, replace
from typing import Any

import torch
import yaml

from perceiver_core import DecoderConfig, EncoderConfig, InputQueryProvider, Model, ModelConfig
from perceiver_registry.configs import PARTS, create_config
from perceiver_registry.testing import model_contract
from perceiver_registry.testing.batches import difference
from perceiver_registry.testing.checks import Contract, expect, expect_none
from perceiver_registry.testing.spec_contract import problems_of_flags, problems_of_import_paths, problems_of_summary
from perceiver_registry.testing.subjects import ArchitectureSubject

OWN = Contract()

SHARED = (
    "output_is_finite",
    "is_deterministic",
    "examples_are_independent",
    "embeddings_are_independent",
    "positions_are_independent",
    "follows_dtype",
    "runs_in_mixed_precision",
    "follows_device",
    "state_dict_restores",
    "can_be_copied",
    "exports",
)
"""Checks of adapters in a model that apply to the model as a whole."""

RESERVED = ("architecture", "name")
"""Keys beside the fields of a plain model config."""


@OWN.check()
def architecture_is_valid(subject: ArchitectureSubject) -> None:
    """An architecture has a summary of one line, a subclass of `Model`, and a subclass of `ModelConfig` decorated with
    @dataclass. The fields of the config have defaults; `params` is one of them, with the default None."""
    expect_none([*problems_of_summary(subject.spec), *problems_of_import_paths(subject.spec, "model", "config")])
    for name, found, base in (("model", subject.model_type, Model), ("config", subject.config_type, ModelConfig)):
        is_subclass = inspect.isclass(found) and issubclass(found, base) and found is not base
        expect(is_subclass, f"{name}={getattr(subject.spec, name)!r} is not a subclass of {base.__name__}")
    expect_none(_problems_of_config_type(subject.config_type))


def _problems_of_config_type(config_type: Any) -> Iterator[str]:
    if "__dataclass_fields__" not in vars(config_type):
        yield f"{config_type.__name__} is not decorated with @dataclass, so that its fields are not part of it"
        return
    own = {field.name: field for field in fields(config_type) if field.name not in PARTS}
    if "params" not in own or own["params"].default is not None:
        yield f"{config_type.__name__} has no field params: str | None = None"
    for name, field in own.items():
        if field.default is MISSING and field.default_factory is MISSING:
            yield f"{config_type.__name__}.{name} has no default"
        if name in RESERVED:
            yield f"{config_type.__name__}.{name} is a reserved name"
    for base, used in ((EncoderConfig, config_type.encoder_fields), (DecoderConfig, config_type.decoder_fields)):
        unknown = sorted(set(used) - {field.name for field in fields(base)})
        if unknown:
            yield f"{config_type.__name__} uses {unknown[0]!r}, which is not a field of {base.__name__}"


@OWN.check(needs=["architecture_is_valid"])
def architecture_fields_are_flags(subject: ArchitectureSubject) -> None:
    """Each field of the config has a type that the command line can parse and a description in the docstring's `Args:`.
    Its values survive a round trip through YAML. `example` names fields (`model.FIELD`)."""
    expect_none(problems_of_flags(subject.config_type, skip=PARTS))
    config = subject.config()
    values = {name: value for name, value in asdict(config).items() if name not in PARTS}
    parts = {part: getattr(config, part) for part in PARTS}
    found = create_config(subject.config_type, yaml.safe_load(yaml.safe_dump(values)) | parts, str(subject))
    expect(found == config, "a round trip through YAML changes the config")


@OWN.check(needs=["architecture_is_valid"])
def architecture_builds(subject: ArchitectureSubject) -> None:
    """`Model(config, input_adapter, output_adapter)` builds the model, with the three as its attributes, and leaves the
    config unchanged."""
    config = subject.config()
    input_adapter, output_adapter = subject.adapters(config)
    model = subject.model_type(config, input_adapter, output_adapter)
    given = {"config": config, "input_adapter": input_adapter, "output_adapter": output_adapter}
    for name, value in given.items():
        expect(getattr(model, name, None) is value, f"the model's {name} is not the argument of that name")
    expect(config == subject.config(), "building the model changes the config")


@OWN.check(needs=["output_is_finite", "is_deterministic"])
def output_ignores_padding(subject: ArchitectureSubject) -> None:
    """Content at padded positions of the input array does not change the output. If the output queries are the inputs,
    this applies to the outputs at positions without padding."""
    model = subject.model()
    batch, other = subject.batch(), subject.batch()
    padding = other["attention_mask"] == 0
    expect(padding.any(), "the example batch has no padding")
    for name in other.keys() - {"attention_mask"}:
        other[name][padding] = other[name][~padding][0]
    with torch.no_grad():
        found, expected = model(other), model(batch)
    if isinstance(model.output_adapter.query_provider, InputQueryProvider):
        found, expected = (each[~padding[:, -each.shape[1] :]] for each in (found, expected))
    wrong = difference(found, expected)
    expect(wrong is None, f"the output depends on the content of padding: {wrong}")


@OWN.check(needs=["output_is_finite"])
def gradients_reach_parameters(subject: ArchitectureSubject) -> None:
    """In training each parameter that requires a gradient, except those of the output adapter, gets a finite one, and
    those of the input adapter one that is not zero everywhere."""
    model = subject.model().train()
    parameters = {
        name: each
        for name, each in model.named_parameters()
        if each.requires_grad and not name.startswith("output_adapter.")
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model_contract.random_loss(model(subject.batch())).backward()
    expect_none(f"no gradient reaches {name}" for name, each in parameters.items() if each.grad is None)
    for name, parameter in parameters.items():
        expect(parameter.grad.isfinite().all(), f"the gradient of {name} is not finite")
        is_flowing = not name.startswith("input_adapter.") or parameter.grad.any()
        expect(is_flowing, f"the gradient of {name} is zero")


def _shared(name: str) -> Any:
    definition = model_contract.CONTRACT.definitions[name]
    needs = tuple(need for need in definition.needs if need in SHARED) or ("architecture_builds",)
    return replace(definition, kind=None, needs=needs)


CONTRACT = OWN | Contract({name: _shared(name) for name in SHARED})
