"""Registration, look-up and validation of specs in the registry."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from perceiver_core import DecoderConfig, EncoderConfig
from perceiver_plugins.text.adapters import TextInputAdapter, TextOutputAdapter
from perceiver_plugins.text.config import TextDecoderConfig, TextEncoderConfig
from perceiver_registry import (
    INTERFACE_VERSION,
    AdapterSpec,
    AmbiguousNameError,
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
    """Return a plugin whose hooks return the given specs."""
    return SimpleNamespace(
        **{name: hookimpl(specname=name)(lambda value=value: value) for name, value in hooks.items()}
    )


@pytest.fixture
def empty() -> Registry:
    return Registry()


def test_built_in_plugin_is_found_by_its_entry_point():
    entry = registry().get("input", "text")
    assert entry.plugin.name == "text"
    assert entry.plugin.distribution == "perceiver-zoo"
    assert entry.resolve("adapter") is TextInputAdapter
    assert entry.resolve("config") is TextEncoderConfig
    assert registry().get("output", "text").resolve("adapter") is TextOutputAdapter


def test_registry_without_plugins_is_empty(empty):
    for kind in ("input", "output", "task", "data", "model"):
        assert empty.entries(kind) == []
        with pytest.raises(UnknownNameError, match="known: none"):
            empty.get(kind, "text")


@pytest.mark.parametrize("kind", ["input", "output", "task", "data", "model"])
def test_entries_are_sorted_by_name(kind):
    names = [entry.name for entry in registry().entries(kind)]
    assert names == sorted(names)
    assert names


IMPORT_PATH_FIELDS = ("adapter", "config", "module", "predictor", "reader")


@pytest.mark.parametrize("kind", ["input", "output", "task", "data"])
def test_all_import_paths_of_built_in_plugins_resolve(kind):
    for entry in registry().entries(kind):
        for field in dataclasses.fields(entry.spec):
            if field.name in IMPORT_PATH_FIELDS and getattr(entry.spec, field.name) is not None:
                assert callable(entry.resolve(field.name)), entry.name


def test_tasks_of_models_and_data_modules_exist():
    for entry in registry().entries("model"):
        assert registry().find("task", entry.spec.task)
    for entry in registry().entries("data"):
        assert entry.spec.tasks == (ANY_TASK,) or all(registry().find("task", task) for task in entry.spec.tasks)
    for entry in registry().entries("task"):
        assert entry.spec.data is None or entry.name in registry().get("data", entry.spec.data).spec.tasks


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
def test_unknown_name_suggests_similar_names(kind, name, near):
    with pytest.raises(UnknownNameError) as error:
        registry().get(kind, name)
    assert repr(name) in str(error.value)
    assert near in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_name_without_similar_names_lists_some():
    with pytest.raises(UnknownNameError, match=r"unknown input adapter 'qqqqq'; known: .*, ... \(\d+ in all\)"):
        registry().get("input", "qqqqq")
    with pytest.raises(UnknownNameError, match=r"unknown task 'qqqqq'; known: .*mlm"):
        registry().get("task", "qqqqq")


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
def test_class_names_and_import_paths_find_the_entry(name):
    assert registry().get("input", name) is registry().get("input", "text")
    assert registry().find("input", name.lower() + "x") is None


def test_class_name_of_a_data_module_finds_the_entry():
    assert registry().get("data", "WikipediaDataModule").name == "wikipedia"


def test_kinds_have_separate_names(empty):
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


OTHER = Plugin("second", "second_dist", "0.1")


@pytest.fixture
def claimed(empty) -> Registry:
    """Registry in which two distributions register an input adapter of one name, and one of them a task."""
    task = TaskSpec("strange", "strange:Lit", "a task", data="strange")
    empty.register(plugin(perceiver_adapters=[ADAPTER]), STRANGER)
    other = dataclasses.replace(ADAPTER, adapter="other:Input", config="other:Config", summary="another")
    empty.register(plugin(perceiver_adapters=[other], perceiver_tasks=[task]), OTHER)
    return empty


def test_name_of_two_distributions_is_ambiguous(claimed):
    for look_up in (claimed.get, claimed.find):
        with pytest.raises(AmbiguousNameError) as error:
            look_up("input", "strange")
        assert str(error.value) == (
            "input adapter 'strange' is in second_dist 0.1 and strange-dist 1.2.3; "
            "write second_dist:strange or strange-dist:strange"
        )
    assert claimed.get("task", "strange").plugin is OTHER


def test_name_with_distribution_selects_one_entry(claimed):
    assert claimed.get("input", "strange-dist:strange").plugin is STRANGER
    for written in ("second_dist:strange", "second-dist:strange", "Second.Dist:strange", "second_dist:Input"):
        assert claimed.get("input", written).plugin is OTHER
    assert claimed.get("input", "other:Input").plugin is OTHER  # an import path
    assert claimed.find("output", "strange-dist:strange") is None
    with pytest.raises(UnknownNameError, match=r"'strange-dist:strag'; .* 'strange-dist:strange'"):
        claimed.get("input", "strange-dist:strag")


def test_names_in_specs_refer_to_their_own_distribution(claimed):
    for home in (STRANGER, OTHER):
        assert claimed.get("input", "strange", home).plugin is home
        assert claimed.get("task", "strange", home).plugin is OTHER
    third = Plugin("third", "third-dist", "1")
    with pytest.raises(AmbiguousNameError):
        claimed.get("input", "strange", third)


def test_ambiguous_entries_are_listed_with_their_distribution(claimed):
    assert [entry.plugin for entry in claimed.entries("input")] == [OTHER, STRANGER]
    assert claimed.matches("input", "strange") == claimed.entries("input")
    assert claimed.names("input") == ["second_dist:strange", "strange-dist:strange"]
    assert claimed.names("task") == ["strange"]
    for kind in ("input", "task"):
        for entry in claimed.entries(kind):
            assert claimed.get(kind, claimed.short_name(entry)) is entry
            assert claimed.get(kind, entry.full_name) is entry


def test_duplicate_name_in_a_distribution_is_rejected(empty):
    empty.register(plugin(perceiver_adapters=[ADAPTER]), STRANGER)
    again = dataclasses.replace(STRANGER, name="again", distribution="Strange_Dist")
    new = dataclasses.replace(ADAPTER, name="new")
    with pytest.raises(PluginError) as error:
        empty.register(plugin(perceiver_adapters=[new, ADAPTER]), again)
    for part in ("'again' of Strange_Dist", "input adapter 'strange' is registered twice", "first by plugin 'strange'"):
        assert part in str(error.value)
    assert empty.names("input") == ["strange"]


def test_plugin_cannot_replace_the_adapter_of_a_config(empty):
    text = registry().get("input", "text").spec
    empty.register(plugin(perceiver_adapters=[dataclasses.replace(ADAPTER, config=text.config)]), STRANGER)
    assert empty.adapter_of("input", TextEncoderConfig()).plugin is STRANGER
    empty.register(plugin(perceiver_adapters=[text]), OTHER)
    assert empty.adapter_of("input", TextEncoderConfig()).plugin is OTHER
    empty.register(
        plugin(perceiver_adapters=[dataclasses.replace(text, name="more")]), dataclasses.replace(OTHER, name="x")
    )
    with pytest.raises(AmbiguousNameError, match="TextEncoderConfig is the config of second_dist:more and second_dist"):
        empty.adapter_of("input", TextEncoderConfig())


class OurTask:
    task = "strange"


class TheirTask:
    task = "strange"


class Derived(OurTask):
    pass


def test_module_class_distinguishes_tasks_of_one_name(empty):
    for each, cls in ((STRANGER, OurTask), (OTHER, TheirTask)):
        spec = TaskSpec("strange", f"{__name__}:{cls.__name__}", "a task", data="strange")
        empty.register(plugin(perceiver_tasks=[spec]), each)
    for cls, owner in ((OurTask, STRANGER), (Derived, STRANGER), (TheirTask, OTHER)):
        assert empty.task_of(cls).plugin is owner
    with pytest.raises(AmbiguousNameError):
        empty.task_of(type("Foreign", (), {"task": "strange"}))
    with pytest.raises(UnknownNameError):
        empty.task_of(type("Foreign", (), {"task": "unknown"}))


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"perceiver_adapters": ["text"]}, "perceiver_adapters returned 'text', which is not a AdapterSpec"),
        ({"perceiver_tasks": [ADAPTER]}, "which is not a TaskSpec"),
        ({"perceiver_adapters": None}, "perceiver_adapters failed: TypeError"),
        ({"perceiver_adaptors": [ADAPTER]}, "perceiver_adaptors"),
        ({}, "registers nothing"),
    ],
)
def test_invalid_hook_results_are_rejected_with_the_plugin(empty, hooks, message):
    with pytest.raises(PluginError) as error:
        empty.register(plugin(**hooks), STRANGER)
    assert "plugin 'strange' of strange-dist 1.2.3" in str(error.value)
    assert message in str(error.value)
    assert all(empty.entries(kind) == [] for kind in ("input", "output", "task", "data", "model"))


@pytest.mark.parametrize(
    ("spec", "field", "value", "expected"),
    [
        (ADAPTER, "name", "", "must be a name of letters"),
        (ADAPTER, "name", "a:b", "must be a name of letters"),
        (ADAPTER, "kind", "sideways", "AdapterSpec 'strange': kind is 'sideways', must be 'input' or 'output'"),
        (ADAPTER, "kind", "task", "must be 'input' or 'output'"),
        (ADAPTER, "kind", ["input"], "must be 'input' or 'output'"),
        (ADAPTER, "config", "strange.Config", "must be an import path such as 'package.module:Name'"),
        (ADAPTER, "config", None, "must be an import path"),
        (ADAPTER, "reader", "", "must be an import path"),
        (ADAPTER, "tasks", "mlm", "must be a tuple of names"),
        (ADAPTER, "reads", ["wave"], "must be a tuple of names"),
        (ADAPTER, "links", {"a": 1}, "must be a mapping of strings to strings"),
        (ADAPTER, "example", {1: "a"}, "must be a mapping with strings as keys"),
        (DataSpec("d", "a:B", (), ""), "module", "a", "DataSpec 'd': module is 'a', must be an import path"),
        (DataSpec("d", "a:B", (), ""), "modules", {"t": "a"}, "DataSpec 'd': modules is {'t': 'a'}, must be a mapping"),
        (TaskSpec("t", "a:B", "", data="d"), "data", "d d", "must be a name, or one written 'distribution:name'"),
        (ModelSpec("m", "t", {}, 1, ""), "num_parameters", True, "must be a whole number"),
    ],
)
def test_specs_reject_values_of_wrong_types(spec, field, value, expected):
    with pytest.raises(ValueError, match=r"is .*, must be ") as error:
        dataclasses.replace(spec, **{field: value})
    assert expected in str(error.value)
    assert field in str(error.value)


def test_specs_accept_none_and_names_of_other_distributions():
    assert dataclasses.replace(ADAPTER, reader=None).reader is None
    assert TaskSpec("t", "a:B", "", data="other-dist:d").data == "other-dist:d"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("1.0", None),
        (None, None),
        ("1.1", "upgrade perceiver-zoo"),
        ("2.0", "upgrade perceiver-zoo"),
        ("0.9", "upgrade it"),
    ],
)
def test_plugin_for_unsupported_interface_is_rejected(empty, monkeypatch, version, message):
    monkeypatch.setattr("perceiver_registry.plugins.INTERFACE_VERSION", "1.0")
    declared = plugin(perceiver_adapters=[ADAPTER])
    if version:
        declared.PERCEIVER_INTERFACE = version
    if message is None:
        empty.register(declared, STRANGER)
        assert empty.names("input") == ["strange"]
        assert empty.plugins[0].interface == version
    else:
        with pytest.raises(PluginError, match=message):
            empty.register(declared, STRANGER)


def test_plugin_for_earlier_minor_version_is_accepted(empty, monkeypatch):
    monkeypatch.setattr("perceiver_registry.plugins.INTERFACE_VERSION", "1.10")
    declared = plugin(perceiver_adapters=[ADAPTER])
    declared.PERCEIVER_INTERFACE = "1.9"
    empty.register(declared, STRANGER)
    assert empty.names("input") == ["strange"]


@pytest.mark.parametrize(("version", "deprecated"), [("1.0", True), ("1.2", True), ("2.0", False), (None, False)])
def test_plugin_for_previous_major_version_is_deprecated(empty, version, deprecated):
    declared = plugin(perceiver_adapters=[ADAPTER])
    if version:
        declared.PERCEIVER_INTERFACE = version
    empty.register(declared, STRANGER)
    assert empty.names("input") == ["strange"]
    line = empty.plugins[0].deprecation
    assert (line is not None) == deprecated
    if line is not None:
        assert f"plugin 'strange' of strange-dist 1.2.3 is written for interface {version}, " in line


def test_removed_argument_suggests_its_replacement(empty):
    @hookimpl
    def perceiver_adapters():
        return [AdapterSpec("a", "input", "a:A", "a:C", "an adapter", conversions="a:CONVERSIONS")]

    with pytest.raises(
        PluginError, match=r"'conversions' was removed in interface 2.0 \(register a format with .*hook"
    ):
        empty.register(SimpleNamespace(perceiver_adapters=perceiver_adapters), STRANGER)


def test_failing_hook_is_an_error_of_its_plugin(empty):
    @hookimpl
    def perceiver_adapters():
        raise KeyError("oops")

    with pytest.raises(
        PluginError, match=r"plugin 'strange' of strange-dist 1.2.3: perceiver_adapters failed: KeyError.*oops"
    ):
        empty.register(SimpleNamespace(perceiver_adapters=perceiver_adapters), STRANGER)


def test_built_in_plugins_declare_the_interface():
    ours = [loaded for loaded in registry().plugins if loaded.plugin.distribution == "perceiver-zoo"]
    assert len(ours) > 5
    assert {loaded.interface for loaded in ours} == {INTERFACE_VERSION}


@pytest.mark.parametrize(
    ("import_path", "reason"),
    [("no_such_package:Name", "no_such_package"), ("perceiver_core:NoSuchName", "NoSuchName")],
)
def test_unresolvable_import_path_is_listed_and_fails_on_use(empty, import_path, reason):
    empty.register(plugin(perceiver_adapters=[dataclasses.replace(ADAPTER, adapter=import_path)]), STRANGER)
    (entry,) = empty.entries("input")
    assert entry.spec.summary == "a stranger's"
    with pytest.raises(PluginError) as error:
        entry.resolve("adapter")
    for part in ("input adapter 'strange'", "strange-dist 1.2.3", import_path, reason):
        assert part in str(error.value)


def test_config_type_selects_its_adapter():
    assert registry().adapter_of("input", TextEncoderConfig()) is registry().get("input", "text")
    assert registry().adapter_of("output", TextDecoderConfig()) is registry().get("output", "text")


@dataclasses.dataclass
class ForeignEncoderConfig(EncoderConfig):
    """Config that no plugin registers."""


@dataclasses.dataclass
class SpecialTextEncoderConfig(TextEncoderConfig):
    """Subclass of a registered config; selects no adapter, since it may belong to another one."""


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
def test_unregistered_config_type_is_an_error(kind, config):
    with pytest.raises(UnknownNameError, match=f"no plugin registers an {kind} adapter for .*{type(config).__name__}"):
        registry().adapter_of(kind, config)


def test_unresolvable_config_of_another_adapter_does_not_affect_selection(empty):
    bad = dataclasses.replace(ADAPTER, config="perceiver_core:NoSuchConfig")
    good = registry().get("input", "text").spec
    empty.register(plugin(perceiver_adapters=[bad, good]), STRANGER)
    assert empty.adapter_of("input", TextEncoderConfig()).name == "text"
