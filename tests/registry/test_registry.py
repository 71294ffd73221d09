"""What the registry finds, refuses and answers."""

from __future__ import annotations

import dataclasses
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from perceiver_core import DecoderConfig, EncoderConfig
from perceiver_plugins.text.adapters import TextInputAdapter, TextOutputAdapter
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import (
    AdapterSpec,
    DataSpec,
    ModelSpec,
    Plugin,
    PluginError,
    Registry,
    TaskSpec,
    UnknownNameError,
    hookimpl,
    registry,
)
from perceiver_registry.specs import ANY_TASK

STRANGER = Plugin("strange", "strange-dist", "1.2.3")
ADAPTER = AdapterSpec("strange", "input", "strange.adapters:Input", "strange.adapters:Config", "a stranger's")


def plugin(**hooks) -> SimpleNamespace:
    """A plugin whose hooks return what is given."""
    return SimpleNamespace(
        **{name: hookimpl(specname=name)(lambda value=value: value) for name, value in hooks.items()}
    )


@pytest.fixture
def empty() -> Registry:
    return Registry([])


def test_the_built_in_plugin_is_found_by_its_entry_point():
    entry = registry().get("input", "text")
    assert entry.plugin.name == "text"
    assert entry.plugin.distribution == "perceiver-zoo"
    assert entry.resolve("adapter") is TextInputAdapter
    assert entry.resolve("config") is TextEncoderConfig
    assert registry().get("output", "text").resolve("adapter") is TextOutputAdapter


def test_nothing_is_known_without_plugins(empty):
    for kind in ("input", "output", "task", "data", "model"):
        assert empty.entries(kind) == []
        with pytest.raises(UnknownNameError, match="known: none"):
            empty.get(kind, "text")


@pytest.mark.parametrize("kind", ["input", "output", "task", "data", "model"])
def test_entries_come_by_name(kind):
    names = [entry.name for entry in registry().entries(kind)]
    assert names == sorted(names)
    assert names


PLACES = ("adapter", "config", "module", "predictor", "reader", "convert_config", "convert_params")


@pytest.mark.parametrize("kind", ["input", "output", "task", "data"])
def test_every_place_of_the_built_in_plugins_can_be_imported(kind):
    for entry in registry().entries(kind):
        for field in dataclasses.fields(entry.spec):
            place = getattr(entry.spec, field.name)
            if field.name in PLACES and place is not None:
                assert callable(entry.resolve(field.name)), (entry.name, field.name)


def test_named_models_and_data_modules_name_tasks_that_exist():
    for entry in registry().entries("model"):
        assert registry().find("task", entry.spec.task)
    for entry in registry().entries("data"):
        assert entry.spec.tasks == (ANY_TASK,) or all(registry().find("task", task) for task in entry.spec.tasks)
    for entry in registry().entries("task"):
        assert entry.name in registry().get("data", entry.spec.data).spec.tasks


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("input", "txt", "did you mean 'text'"),
        ("task", "mml", "did you mean 'mlm'"),
        ("data", "wikipedai", "did you mean 'wikipedia'"),
        ("data", "WikipediaDataModul", "'WikipediaDataModule'"),
        ("model", "language_perceiver", "did you mean 'language-perceiver'"),
    ],
)
def test_an_unknown_name_lists_near_ones(kind, name, near):
    with pytest.raises(UnknownNameError) as error:
        registry().get(kind, name)
    assert repr(name) in str(error.value)
    assert near in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_name_that_is_near_none_lists_all():
    with pytest.raises(UnknownNameError, match=r"unknown input adapter 'qqqqq'; known: .*text"):
        registry().get("input", "qqqqq")


@pytest.mark.parametrize(
    "name",
    [
        "text",
        "TextInputAdapter",
        "TextEncoderConfig",
        "perceiver_plugins.text.adapters.TextInputAdapter",
        "perceiver_plugins.text.adapters:TextInputAdapter",
        "perceiver_plugins.text.config.TextEncoderConfig",
    ],
)
def test_class_names_and_dotted_paths_answer_like_the_name(name):
    assert registry().get("input", name) is registry().get("input", "text")
    assert registry().find("input", name.lower() + "x") is None


def test_the_class_of_a_data_module_answers():
    assert registry().get("data", "WikipediaDataModule").name == "wikipedia"


def test_one_name_may_be_taken_once_in_each_kind(empty):
    output = dataclasses.replace(ADAPTER, kind="output")
    task = TaskSpec("strange", "strange:Lit", "a task", data="strange")
    data = DataSpec("strange", "strange:Data", ("strange",), "data")
    model = ModelSpec("strange", "strange", {}, 1, "a model")
    empty.register(
        plugin(
            perceiver_adapters=[ADAPTER, output],
            perceiver_tasks=[task],
            perceiver_data=[data],
            perceiver_models=[model],
        ),
        STRANGER,
    )
    kinds = {"input": ADAPTER, "output": output, "task": task, "data": data, "model": model}
    for kind, spec in kinds.items():
        assert empty.get(kind, "strange").spec is spec
        assert empty.get(kind, "strange").plugin == STRANGER


def test_a_name_that_is_taken_is_refused_with_both_plugins(empty):
    empty.register(plugin(perceiver_adapters=[ADAPTER]), STRANGER)
    other = dataclasses.replace(ADAPTER, summary="another")
    with pytest.raises(PluginError) as error:
        empty.register(plugin(perceiver_adapters=[other]), Plugin("second", "second-dist", "0.1"))
    for part in (
        "input adapter 'strange'",
        "registered twice",
        "'strange' of strange-dist 1.2.3",
        "'second' of second-",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"perceiver_adapters": ["text"]}, "perceiver_adapters returned 'text', which is no AdapterSpec"),
        ({"perceiver_tasks": [ADAPTER]}, "which is no TaskSpec"),
        (
            {"perceiver_adapters": [dataclasses.replace(ADAPTER, kind="sideways")]},
            "kind 'sideways', which must be input or output",
        ),
        ({"perceiver_adapters": [dataclasses.replace(ADAPTER, kind="task")]}, "kind 'task', which must"),
        ({"perceiver_adapters": None}, "perceiver_adapters failed: TypeError"),
        ({"perceiver_adaptors": [ADAPTER]}, "perceiver_adaptors"),
    ],
)
def test_what_is_no_spec_of_a_hook_is_refused_with_the_plugin(empty, hooks, message):
    with pytest.raises(PluginError) as error:
        empty.register(plugin(**hooks), STRANGER)
    assert "plugin 'strange' of strange-dist 1.2.3" in str(error.value)
    assert message in str(error.value)


def test_a_hook_that_fails_is_an_error_of_its_plugin(empty):
    @hookimpl
    def perceiver_adapters():
        raise KeyError("oops")

    with pytest.raises(
        PluginError, match=r"plugin 'strange' of strange-dist 1.2.3: perceiver_adapters failed: KeyError.*oops"
    ):
        empty.register(SimpleNamespace(perceiver_adapters=perceiver_adapters), STRANGER)


def test_a_plugin_that_cannot_be_imported_is_named():
    point = EntryPoint("broken", "no_such_package.plugin", "perceiver")
    with pytest.raises(PluginError, match=r"plugin 'broken' of .*cannot import 'no_such_package.plugin'"):
        Registry([point])


@pytest.mark.parametrize(
    ("place", "reason"), [("no_such_package:Name", "no_such_package"), ("perceiver_core:NoSuchName", "NoSuchName")]
)
def test_a_bad_place_is_listed_and_fails_only_when_it_is_used(empty, place, reason):
    empty.register(plugin(perceiver_adapters=[dataclasses.replace(ADAPTER, adapter=place)]), STRANGER)
    (entry,) = empty.entries("input")
    assert entry.spec.summary == "a stranger's"
    with pytest.raises(PluginError) as error:
        entry.resolve("adapter")
    for part in ("input adapter 'strange'", "strange-dist 1.2.3", place, reason):
        assert part in str(error.value)


def test_the_type_of_a_config_selects_its_adapter():
    assert registry().adapter_of("input", TextEncoderConfig()) is registry().get("input", "text")
    assert registry().adapter_of("output", TextDecoderConfig()) is registry().get("output", "text")


@dataclasses.dataclass
class ForeignEncoderConfig(EncoderConfig):
    """A config that no plugin registers."""


@dataclasses.dataclass
class SpecialTextEncoderConfig(TextEncoderConfig):
    """A subclass of a config that is registered: it may mean another adapter, so it selects none."""


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("input", ForeignEncoderConfig()),
        ("input", SpecialTextEncoderConfig()),
        ("input", EncoderConfig()),
        ("input", TextDecoderConfig()),
        ("output", DecoderConfig()),
        ("output", TextEncoderConfig()),
    ],
)
def test_a_config_of_a_type_that_nobody_registered_selects_nothing(kind, config):
    with pytest.raises(UnknownNameError, match=f"no plugin registers an {kind} adapter for .*{type(config).__name__}"):
        registry().adapter_of(kind, config)


def test_a_bad_place_of_another_plugin_does_not_hinder_the_selection(empty):
    bad = dataclasses.replace(ADAPTER, config="perceiver_core:NoSuchConfig")
    good = registry().get("input", "text").spec
    empty.register(plugin(perceiver_adapters=[bad, good]), STRANGER)
    assert empty.adapter_of("input", TextEncoderConfig()).name == "text"
