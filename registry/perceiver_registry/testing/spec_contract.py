"""Checks of an adapter's spec and config. The docstring of a check is its description."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any
from unittest import SkipTest

import yaml

from perceiver_core import DecoderConfig, EncoderConfig, InputAdapter, OutputAdapter, QueryProvider
from perceiver_plugins.sdk.data import ColumnReader
from perceiver_registry.configs import create_config
from perceiver_registry.import_paths import resolve_import_path
from perceiver_registry.sizing import problem_of_sized_defaults
from perceiver_registry.testing.checks import Contract, expect, expect_none
from perceiver_registry.testing.subjects import AdapterSubject

CONTRACT = Contract()

BASES: dict[str, tuple[type, type]] = {"input": (InputAdapter, EncoderConfig), "output": (OutputAdapter, DecoderConfig)}
"""Base classes of adapter and config, by kind."""

IMPORT_PATH_FIELDS = ("adapter", "config", "reader", "size_rule")


@CONTRACT.check()
def spec_is_complete(subject: AdapterSubject) -> None:
    """A spec has a summary of one line, and that of an output adapter names the `tasks` that accept its output."""
    expect_none(problems_of_summary(subject.spec))
    expect(subject.kind == "input" or subject.spec.tasks, "`tasks` is empty: no task can use it")


def problems_of_summary(spec: Any) -> Iterator[str]:
    """Yield problems of a spec's summary."""
    if not spec.summary.strip() or "\n" in spec.summary:
        yield f"{spec.name}: summary={spec.summary!r} must be one line"


@CONTRACT.check()
def import_paths_resolve(subject: AdapterSubject) -> None:
    """Each import path of a spec, `module:Name`, can be imported."""
    expect_none(problems_of_import_paths(subject.spec, *IMPORT_PATH_FIELDS))
    expect_none(problems_of_column_readers(subject.spec))


def problems_of_column_readers(spec: Any) -> Iterator[str]:
    """Yield an error for each of a spec's column readers that is not a complete subclass of ColumnReader."""
    for kind, path in getattr(spec, "column_readers", {}).items():
        try:
            reader = resolve_import_path(path)
        except Exception as error:
            yield f"{spec.name}: column_readers[{kind!r}]={path!r} cannot be imported: {type(error).__name__}: {error}"
            continue
        if not (inspect.isclass(reader) and issubclass(reader, ColumnReader)) or inspect.isabstract(reader):
            yield f"{spec.name}: column_readers[{kind!r}]={path!r} is not a complete subclass of ColumnReader"


def problems_of_import_paths(spec: Any, *names: str) -> Iterator[str]:
    """Yield an error for each of a spec's fields whose import path does not resolve."""
    for name in names:
        path = getattr(spec, name)
        if path is None:
            continue
        try:
            resolve_import_path(path)
        except Exception as error:
            yield f"{spec.name}: {name}={path!r} cannot be imported: {type(error).__name__}: {error}"


@CONTRACT.check(needs=["import_paths_resolve"])
def classes_match_kind(subject: AdapterSubject) -> None:
    """An input adapter is a subclass of InputAdapter with a subclass of EncoderConfig, an output adapter one of
    OutputAdapter with a subclass of DecoderConfig. The config is decorated with @dataclass, since its type selects the
    adapter."""
    adapter_base, config_base = BASES[subject.kind]
    for name, found, base in (
        ("adapter", subject.adapter_type, adapter_base),
        ("config", subject.config_type, config_base),
    ):
        is_subclass = inspect.isclass(found) and issubclass(found, base) and found is not base
        expect(is_subclass, f"{name}={getattr(subject.spec, name)!r} is not a subclass of {base.__name__}")
    expect(
        "__dataclass_fields__" in vars(subject.config_type),
        f"{subject.config_type.__name__} is not decorated with @dataclass, so that its fields are not part of it",
    )


@CONTRACT.check(kind="input", needs=["import_paths_resolve"])
def reader_is_valid(subject: AdapterSubject) -> None:
    """A reader is a class with the methods `expand`, `read` and `collate`, called with the data description of a
    checkpoint and the input adapter."""
    if subject.spec.reader is None:
        raise SkipTest("the spec has no reader")
    reader = resolve_import_path(subject.spec.reader)
    expect(inspect.isclass(reader), f"reader={subject.spec.reader!r} is not a class")
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


@CONTRACT.check(kind="input", needs=["classes_match_kind"])
def size_rule_is_valid(subject: AdapterSubject) -> None:
    """A size rule is a function of a data module, the name of a task and the values of a run. For data of unknown size
    and any task, it returns None or `SizedDefaults`, whose flags `model.encoder.FIELD` name fields of the config."""
    if subject.spec.size_rule is None:
        raise SkipTest("the spec has no size_rule")
    call = f"size_rule={subject.spec.size_rule!r} of data without attributes"
    try:
        found = resolve_import_path(subject.spec.size_rule)(object(), "any-task", {})
    except Exception as error:
        raise AssertionError(f"{call} fails: {type(error).__name__}: {error}") from error
    if found is None:
        return
    problem = problem_of_sized_defaults(found)
    expect(problem is None, f"{call}: {problem}")
    known = {f"{subject.section}{field.name}" for field in fields(subject.config_type)}
    expect_none(
        f"{call}: {flag!r} is not a field of {subject.config_type.__name__}"
        for flag in found.defaults
        if flag.startswith(subject.section) and flag not in known
    )


@CONTRACT.check(needs=["classes_match_kind"])
def linked_fields_exist(subject: AdapterSubject) -> None:
    """`links` maps fields of the config to attribute names of data modules."""
    known = {field.name for field in fields(subject.config_type)}
    expect_none(
        f"links: {name!r} is not a field of {subject.config_type.__name__}"
        for name in subject.spec.links
        if name not in known
    )
    expect_none(
        f"links[{name!r}]={attribute!r} is not an attribute name"
        for name, attribute in subject.spec.links.items()
        if not (isinstance(attribute, str) and attribute.isidentifier())
    )


@CONTRACT.check(needs=["classes_match_kind"])
def example_builds_config(subject: AdapterSubject) -> None:
    """`example` has values for fields of the config by dotted flag (`model.encoder.FIELD` or `model.decoder.FIELD`)
    with which the config can be created."""
    known = {field.name for field in fields(subject.config_type)}
    expect_none(
        f"example: {flag!r} is not a field of {subject.config_type.__name__}; flags begin with {subject.section!r}"
        for flag in subject.example
        if not flag.startswith(subject.section) or flag.removeprefix(subject.section) not in known
    )
    subject.config()


@CONTRACT.check(needs=["example_builds_config"])
def config_validates_values(subject: AdapterSubject) -> None:
    """A config raises ValueError for values out of range, also in fields of its base class (a subclass with a
    `__post_init__` calls `super().__post_init__()`)."""
    for name, value in {"num_cross_attention_heads": 0, "dropout": 1.5, "init_scale": -1.0}.items():
        try:
            subject.config(**{name: value})
        except ValueError:
            continue
        raise AssertionError(f"{subject.config_type.__name__}({name}={value}) is accepted")


@CONTRACT.check(needs=["example_builds_config"])
def config_is_plain_data(subject: AdapterSubject) -> None:
    """A config survives a round trip through YAML, so that it can be stored in config files and checkpoints."""
    config = subject.config()
    try:
        text = yaml.safe_dump(asdict(config))
    except yaml.YAMLError as error:
        raise AssertionError(f"{type(config).__name__} contains values that are not plain data: {error}") from error
    found = create_config(type(config), yaml.safe_load(text), str(subject))
    expect(found == config, f"a round trip through YAML changes it: {_changed(config, found)}")


def _changed(config: Any, found: Any) -> str:
    return ", ".join(
        f"{field.name}={getattr(config, field.name)!r} became {getattr(found, field.name)!r}"
        for field in fields(config)
        if getattr(config, field.name) != getattr(found, field.name)
    )


@CONTRACT.check(needs=["example_builds_config"])
def config_fields_are_flags(subject: AdapterSubject) -> None:
    """Each field of a config has a type that the command line can parse and a description in the docstring's `Args:`,
    which `--help` shows."""
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
    expect(found == config, f"a round trip through flags changes it: {_changed(config, found)}")


def flags_of(cls: type, skip: Iterable[str] = ()) -> Any:
    """Create a parser of a class's arguments but those in ``skip``, as flags with the prefix ``--own.``."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, "own", skip={*skip}, instantiate=False)
    return parser


def problems_of_flags(cls: type, skip: Iterable[str] = ()) -> Iterator[str]:
    """Yield reasons why the arguments of a class, but those in ``skip``, cannot be flags."""
    try:
        parser = flags_of(cls, skip)
    except Exception as error:  # unknown types raise various errors
        yield f"the arguments of {cls.__name__} cannot be flags: {' '.join(str(error).split())}"
        return
    for action in parser._actions:
        if action.dest.startswith("own.") and not action.help:
            yield f"{cls.__name__}: {action.dest.removeprefix('own.')!r} is not documented"


@CONTRACT.check(needs=["example_builds_config"])
def builds_from_config(subject: AdapterSubject) -> None:
    """`from_config` builds the adapter from the config (an output adapter: and the input adapter) without changing the
    config. An input adapter has `num_input_channels`, an output adapter a `query_provider`."""
    model = subject.model()
    adapter = subject.adapter(model)
    config = model.config.encoder if subject.kind == "input" else model.config.decoder
    expect(config == subject.config(), f"from_config changed the config: {_changed(subject.config(), config)}")
    if isinstance(adapter, InputAdapter):
        channels = adapter.num_input_channels
        expect(type(channels) is int and channels >= 1, f"num_input_channels={channels!r} must be a positive integer")
    else:
        expect(
            isinstance(adapter, OutputAdapter), f"from_config returns {type(adapter).__name__}, not an OutputAdapter"
        )
        provider = adapter.query_provider
        expect(isinstance(provider, QueryProvider), f"query_provider is {type(provider).__name__}, not a QueryProvider")
