"""What the contract says of an adapter's spec and config. A docstring is the contract's sentence."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any
from unittest import SkipTest

import yaml

from perceiver_core import DecoderConfig, EncoderConfig, InputAdapter, OutputAdapter, QueryProvider
from perceiver_registry.configs import create_config
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.testing.checks import Contract, expect, expect_none
from perceiver_registry.testing.subjects import AdapterSubject

CONTRACT = Contract()

BASES: dict[str, tuple[type, type]] = {"input": (InputAdapter, EncoderConfig), "output": (OutputAdapter, DecoderConfig)}
"""What adapter and config are subclasses of, by kind."""

PLACES = ("adapter", "config", "reader")


@CONTRACT.check()
def spec_is_complete(subject: AdapterSubject) -> None:
    """A spec has a summary of one line, and that of an output adapter the `tasks` that understand its output."""
    expect_none(problems_of_summary(subject.spec))
    expect(subject.kind == "input" or subject.spec.tasks, "`tasks` is empty: no task can use it")


def problems_of_summary(spec: Any) -> Iterator[str]:
    """What is wrong with the summary of any spec."""
    if not spec.summary.strip() or "\n" in spec.summary:
        yield f"{spec.name}: summary={spec.summary!r} is no line that says what it is"


@CONTRACT.check()
def import_paths_resolve(subject: AdapterSubject) -> None:
    """Each place of a spec, `module:Name`, can be imported."""
    expect_none(problems_of_places(subject.spec, *PLACES))


def problems_of_places(spec: Any, *names: str) -> Iterator[str]:
    """Which of a spec's places cannot be imported, and why."""
    for name in names:
        place = getattr(spec, name)
        if place is None:
            continue
        try:
            resolve_import_path(place)
        except Exception as error:
            yield f"{spec.name}: {name}={place!r} cannot be imported: {type(error).__name__}: {error}"


@CONTRACT.check(needs=["import_paths_resolve"])
def classes_match_kind(subject: AdapterSubject) -> None:
    """The adapter of an input is an InputAdapter and its config an EncoderConfig, those of an output an OutputAdapter
    and a DecoderConfig; the config is a dataclass of its own, as its type selects the adapter."""
    adapter_base, config_base = BASES[subject.kind]
    for name, found, base in (
        ("adapter", subject.adapter_type, adapter_base),
        ("config", subject.config_type, config_base),
    ):
        is_subclass = inspect.isclass(found) and issubclass(found, base) and found is not base
        expect(is_subclass, f"{name}={getattr(subject.spec, name)!r} is no subclass of {base.__name__}")
    expect(
        "__dataclass_fields__" in vars(subject.config_type),
        f"{subject.config_type.__name__} lacks its own @dataclass, so that its fields are none",
    )


@CONTRACT.check(kind="input", needs=["import_paths_resolve"])
def reader_is_valid(subject: AdapterSubject) -> None:
    """A reader is a class with `expand`, `read` and `collate`, made of what a checkpoint says of the data and the input
    adapter."""
    if subject.spec.reader is None:
        raise SkipTest("the spec names no reader")
    reader = resolve_import_path(subject.spec.reader)
    expect(inspect.isclass(reader), f"reader={subject.spec.reader!r} is no class")
    abstract = sorted(getattr(reader, "__abstractmethods__", ()))
    expect(not abstract, f"{reader.__name__} does not implement {', '.join(abstract)}")
    expect_none(
        f"{reader.__name__} has no method {name!r}"
        for name in ("expand", "read", "collate")
        if not callable(getattr(reader, name, None))
    )
    try:
        inspect.signature(reader).bind({}, None)
    except TypeError as error:
        raise AssertionError(f"{reader.__name__}(data, input_adapter) cannot be called: {error}") from error


@CONTRACT.check(needs=["classes_match_kind"])
def linked_fields_exist(subject: AdapterSubject) -> None:
    """`links` gives names of attributes of data modules to fields of the config."""
    known = {field.name for field in fields(subject.config_type)}
    expect_none(
        f"links names {name!r}, which is no field of {subject.config_type.__name__}"
        for name in subject.spec.links
        if name not in known
    )
    expect_none(
        f"links[{name!r}]={attribute!r} is no name of an attribute"
        for name, attribute in subject.spec.links.items()
        if not (isinstance(attribute, str) and attribute.isidentifier())
    )


@CONTRACT.check(needs=["classes_match_kind"])
def example_builds_config(subject: AdapterSubject) -> None:
    """`example` gives values to fields of the config by dotted flag (`model.encoder.FIELD` or `model.decoder.FIELD`),
    and with them a config can be made."""
    known = {field.name for field in fields(subject.config_type)}
    expect_none(
        f"example names {flag!r}, which is no field of {subject.config_type.__name__}; "
        f"flags begin with {subject.section!r}"
        for flag in subject.example
        if not flag.startswith(subject.section) or flag.removeprefix(subject.section) not in known
    )
    subject.config()


@CONTRACT.check(needs=["example_builds_config"])
def config_validates_values(subject: AdapterSubject) -> None:
    """A config refuses values that are out of range with a ValueError, those of its base class included (a subclass
    with a `__post_init__` calls `super().__post_init__()`)."""
    for name, value in {"num_cross_attention_heads": 0, "dropout": 1.5, "init_scale": -1.0}.items():
        try:
            subject.config(**{name: value})
        except ValueError:
            continue
        raise AssertionError(f"{subject.config_type.__name__}({name}={value}) is accepted")


@CONTRACT.check(needs=["example_builds_config"])
def config_is_plain_data(subject: AdapterSubject) -> None:
    """A config is equal to what is read back from its YAML, so that config files and checkpoints can hold it."""
    config = subject.config()
    try:
        text = yaml.safe_dump(asdict(config))
    except yaml.YAMLError as error:
        raise AssertionError(f"{type(config).__name__} holds what is no plain data: {error}") from error
    found = create_config(type(config), yaml.safe_load(text), str(subject))
    expect(found == config, f"read back from YAML it is another: {_changed(config, found)}")


def _changed(config: Any, found: Any) -> str:
    return ", ".join(
        f"{field.name}={getattr(config, field.name)!r} became {getattr(found, field.name)!r}"
        for field in fields(config)
        if getattr(config, field.name) != getattr(found, field.name)
    )


@CONTRACT.check(needs=["example_builds_config"])
def config_fields_are_flags(subject: AdapterSubject) -> None:
    """Each field of a config has a type that the command line can read a value of, and a word about it in the
    docstring's `Args:`, which `--help` shows."""
    expect_none(problems_of_flags(subject.config_type))
    parser = flags_of(subject.config_type)
    config = subject.config()
    values = {name: value for name, value in asdict(config).items() if value is not None}
    flags = [f"--own.{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in values.items()]
    try:
        parsed = parser.parse_args(flags).own.as_dict()
    except Exception as error:
        raise AssertionError(f"its values cannot be given as flags: {' '.join(str(error).split())}") from error
    found = create_config(type(config), parsed, str(subject))
    expect(found == config, f"given as flags it is another: {_changed(config, found)}")


def flags_of(cls: type) -> Any:
    """A parser of a class's arguments, as flags that begin with ``--own.``."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "own", instantiate=False)
    return parser


def problems_of_flags(cls: type) -> Iterator[str]:
    """What keeps the arguments of a class from being flags."""
    try:
        parser = flags_of(cls)
    except Exception as error:  # types that it does not know fail in any way
        yield f"the arguments of {cls.__name__} make no flags: {' '.join(str(error).split())}"
        return
    for action in parser._actions:
        if action.dest.startswith("own.") and not action.help:
            yield f"{cls.__name__}: {action.dest.removeprefix('own.')!r} is not documented"


@CONTRACT.check(needs=["example_builds_config"])
def builds_from_config(subject: AdapterSubject) -> None:
    """`from_config` builds the adapter from nothing but the config (an output adapter: and the input adapter), which
    it leaves as it is; an input adapter says its `num_input_channels`, an output adapter has a `query_provider`."""
    model = subject.model()
    adapter = subject.adapter(model)
    config = model.config.encoder if subject.kind == "input" else model.config.decoder
    expect(config == subject.config(), f"from_config changed the config: {_changed(subject.config(), config)}")
    if isinstance(adapter, InputAdapter):
        channels = adapter.num_input_channels
        expect(type(channels) is int and channels >= 1, f"num_input_channels={channels!r} is no whole number above 0")
    else:
        expect(isinstance(adapter, OutputAdapter), f"from_config returns {type(adapter).__name__}, no OutputAdapter")
        provider = adapter.query_provider
        expect(isinstance(provider, QueryProvider), f"query_provider is {type(provider).__name__}, no QueryProvider")
