"""``perceiver plugins`` and the selection of plugins, with twenty installed plugins."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest
from environments import FreshEnvironment, Result, write_wheel

from perceiver_registry import INTERFACE_VERSION

PLUGIN = """
from perceiver_registry import AdapterSpec, DataSpec, hookimpl
{declaration}

@hookimpl
def perceiver_adapters():
    return [
        AdapterSpec("{name}", kind, "{name}_package.adapters:Adapter", "{name}_package.adapters:Config", "an adapter")
        for kind in ("input", "output")
    ]

@hookimpl
def perceiver_data():
    return [DataSpec("{name}", "{name}_package.data:Data", ("*",), "data of {name}")]
"""
NAMES = [f"plugin{number}" for number in range(20)]

IMPORTS = """
import json, sys
from perceiver_cli.main import main
code = main(["list-adapters", "--format=json"])
slow = {"torch", "numpy", "pytorch_lightning", "transformers", "datasets", "jsonargparse"} & set(sys.modules)
print("\\n" + json.dumps([code, sorted(slow)]))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """An environment with twenty distributions that have a plugin each."""
    folder = tmp_path_factory.mktemp("twenty")
    wheels = [
        write_wheel(
            folder,
            f"{name}-dist",
            {
                f"{name}_package/__init__.py": "",
                f"{name}_package/plugin.py": PLUGIN.format(
                    name=name, declaration="" if name == "plugin0" else 'PERCEIVER_INTERFACE = "2.0"'
                ),
                f"{name}_package/adapters.py": "import torch\n",
            },
            plugins={name: f"{name}_package.plugin"},
            version=f"2.{number}",
        )
        for number, name in enumerate(NAMES)
    ]
    fresh = FreshEnvironment(folder / "environment")
    fresh.install(*wheels)
    return fresh


def rows(result: Result) -> dict[str, dict]:
    assert result.code == 0, result.err
    assert result.err == ""
    return {row["name"]: row for row in json.loads(result.out)}


def error(result: Result) -> str:
    assert (result.code, result.out) == (2, "")
    (line,) = result.err.splitlines()
    return line.removeprefix("perceiver: ")


def test_twenty_plugins_are_listed_without_torch(fresh):
    done = fresh.python("-c", IMPORTS)
    assert done.code == 0, done.err
    *listing, facts = done.out.splitlines()
    assert json.loads(facts) == [0, []]
    listed = json.loads("\n".join(listing))
    for number, name in enumerate(NAMES):
        found = {(row["kind"], row["distribution"], row["version"]) for row in listed if row["name"] == name}
        assert found == {(kind, f"{name}-dist", f"2.{number}") for kind in ("input", "output")}
    assert "text" in {row["name"] for row in listed}


def test_plugins_are_listed_with_their_objects(fresh):
    shown = rows(fresh.perceiver("plugins", "--format=json"))
    assert set(NAMES) <= set(shown)
    loaded = shown["plugin7"]
    assert loaded.pop("milliseconds") > 0
    assert loaded == {
        "name": "plugin7",
        "distribution": "plugin7-dist",
        "version": "2.7",
        "interface": "2.0",
        "status": "ok",
        "provides": {"input": ["plugin7"], "output": ["plugin7"], "data": ["plugin7"]},
        "error": None,
    }
    assert shown["plugin0"]["interface"] is None
    assert shown["text"]["interface"] == INTERFACE_VERSION
    assert shown["text"]["distribution"] == "perceiver-zoo"
    assert shown["text"]["version"] == version("perceiver-zoo")
    assert "mlm" in shown["text"]["provides"]["task"]


def test_plugins_are_listed_as_a_table(fresh):
    shown = fresh.perceiver("plugins", "plugin1*")
    assert shown.code == 0
    title, *lines = shown.out.splitlines()
    assert title.split() == ["plugin", "distribution", "version", "interface", "status", "ms", "provides"]
    assert [line.split()[0] for line in lines] == ["plugin1", *(f"plugin{number}" for number in range(10, 20))]
    words = lines[0].split()
    assert words[:5] == ["plugin1", "plugin1-dist", "2.1", "2.0", "ok"]
    assert float(words[5]) > 0
    assert " ".join(words[6:]) == "1 input adapter, 1 output adapter, 1 data module"


@pytest.mark.slow
def test_pattern_matches_plugins_and_distributions(perceiver):
    shown = json.loads(perceiver("plugins", "perceiver-*", "--format=json").out)
    assert {"text", "image", "checkpoints"} <= {row["name"] for row in shown}
    assert [row["name"] for row in json.loads(perceiver("plugins", "tex*", "--format=json").out)] == ["text"]
    assert "no plugin matches 'nothing*'" in perceiver("plugins", "nothing*").out
    assert json.loads(perceiver("plugins", "nothing*", "--format=json").out) == []


def test_plugins_are_selected_by_name_or_distribution(fresh):
    chosen = rows(fresh.perceiver("plugins", "--plugins=plugin3,Plugin4_Dist", "--format=json"))
    assert {name for name, row in chosen.items() if row["status"] == "ok"} == {"plugin3", "plugin4"}
    assert chosen["text"]["status"] == "disabled"
    assert chosen["text"]["provides"] == {}
    listed = rows(fresh.perceiver("list-data", "--plugins=plugin3,plugin4", "--format=json"))
    assert set(listed) == {"plugin3", "plugin4"}


def test_all_plugins_can_be_disabled(perceiver):
    assert json.loads(perceiver("list-adapters", "--plugins=none", "--format=json").out) == []
    assert perceiver("list-tasks", "--plugins=none").out == "none installed\n"
    assert {row["status"] for row in json.loads(perceiver("plugins", "--plugins=none", "--format=json").out)} == {
        "disabled"
    }
    assert json.loads(perceiver("list-adapters", "--format=json").out), "the selection of one command outlived it"


def test_environment_disables_plugins(fresh):
    variable = {"PERCEIVER_DISABLE_PLUGINS": "plugin5, plugin6-dist"}
    listed = rows(fresh.perceiver("list-data", "plugin*", "--format=json", **variable))
    assert set(listed) == set(NAMES) - {"plugin5", "plugin6"}
    both = rows(fresh.perceiver("list-data", "--plugins=plugin5,plugin7", "--format=json", **variable))
    assert set(both) == {"plugin7"}
    missing = fresh.perceiver("describe", "plugin5-dist:plugin5", **variable)
    assert "unknown name 'plugin5-dist:plugin5'" in error(missing)
    assert error(missing).endswith("; disabled plugins: plugin5)")


@pytest.mark.parametrize(
    ("flag", "variable", "reason"),
    [
        ("--plugins=txt", "", "--plugins=txt: unknown plugin; did you mean 'text'"),
        (
            "--plugins=text,percever-zoo",
            "",
            "--plugins=percever-zoo: unknown plugin; did you mean 'perceiver-z",
        ),
        ("--plugins=text", "imgae", "PERCEIVER_DISABLE_PLUGINS=imgae: unknown plugin; did you mean 'image'?"),
        ("--plugins", "", "argument --plugins: expected one argument"),
    ],
)
def test_unknown_plugin_is_reported_with_suggestions(perceiver, monkeypatch, flag, variable, reason):
    monkeypatch.setenv("PERCEIVER_DISABLE_PLUGINS", variable)
    assert perceiver("list-tasks", flag).error.startswith(reason)


def test_name_of_a_disabled_plugin_is_reported(perceiver):
    error = perceiver("fit", "--task=mlm", "--plugins=table").error
    assert "unknown task 'mlm'" in error
    assert "disabled plugins: " in error


def test_wrong_use_is_one_line(perceiver):
    assert "--formt: unknown flag (did you mean '--format'?)" in perceiver("plugins", "--formt=json").error
    shown = perceiver("plugins", "--help")
    assert shown.code == 0
    assert "--format {table,json}" in shown.out
    assert "--plugins=A,B" in shown.out
