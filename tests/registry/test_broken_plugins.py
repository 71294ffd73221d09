"""Installed plugins that fail to load, next to plugins that must keep working."""

from __future__ import annotations

import json
import re

import pytest
from environments import FreshEnvironment, Result, write_wheel

from perceiver_registry import INTERFACE_VERSION as OURS

ABOVE = """
import sys
from perceiver_registry import AdapterSpec, DataSpec, ModelSpec, TaskSpec, hookimpl

def adapter(name, adapter="a:Adapter", config="a:Config", kind="input", summary="a stranger's", **more):
    return AdapterSpec(name=name, kind=kind, adapter=adapter, config=config, summary=summary, **more)

@hookimpl
def perceiver_models():
    return [ModelSpec("of-{name}", "mlm", {{}}, 1, "of a plugin that fails later")]

"""
HOOK = "@hookimpl\ndef perceiver_adapters():\n    "

BROKEN = {
    "missing-import": ("import no_such_package", "cannot be imported: ModuleNotFoundError: No module named 'no_such_"),
    "syntax": ("def :", "cannot be imported: SyntaxError: invalid syntax (syntax_plugin.py, line 12)"),
    "exits": ("sys.exit('bye')", "cannot be imported: SystemExit: bye"),
    "leaves": ("class Leave(BaseException): pass\nraise Leave", "cannot be imported: Leave"),
    "mute": (
        "class Mute(Exception):\n    def __str__(self):\n        raise self\nraise Mute",
        "cannot be imported: Mute",
    ),
    "long": ("raise ValueError('two\\nlines \\x1b[31m' + 'x' * 5000)", "ValueError: two lines \\u001b[31mxxx"),
    "raises": (HOOK + "raise KeyError('oops')", "perceiver_adapters failed: KeyError: 'oops'"),
    "exits-later": (HOOK + "sys.exit(3)", "perceiver_adapters failed: SystemExit: 3"),
    "halfway": (HOOK + "yield adapter('of-halfway')\n    raise OSError('disk')", "failed: OSError: disk"),
    "nothing": (HOOK + "adapter('of-nothing')", "perceiver_adapters failed: TypeError: 'NoneType' object is not it"),
    "one-spec": (HOOK + "return adapter('of-one')", "perceiver_adapters failed: TypeError: 'AdapterSpec' object is"),
    "texts": (HOOK + "return ['wave']", "perceiver_adapters returned 'wave', which is not a AdapterSpec"),
    "other-spec": (
        HOOK + "return [DataSpec('of-other', 'a:B', ('mlm',), '')]",
        "perceiver_adapters returned DataSpec(name...h_suffixes=()), which is not a AdapterSpec",
    ),
    "number": (HOOK + "return [adapter(5)]", "AdapterSpec: name is 5, must be a name of letters, digits and ._/+-"),
    "colon": (HOOK + "return [adapter('a:b')]", "AdapterSpec: name is 'a:b', must be a name"),
    "no-colon": (
        HOOK + "return [adapter('of-no-colon', 'a.Adapter')]",
        "AdapterSpec 'of-no-colon': adapter is 'a.Adapter', must be an import path such as 'package.module:Name'",
    ),
    "sideways": (HOOK + "return [adapter('x', kind='sideways')]", "kind is 'sideways', must be 'input' or 'output'"),
    "one-task": (HOOK + "return [adapter('x', tasks=('mlm'))]", "tasks is 'mlm', must be a tuple of names"),
    "list-of-links": (HOOK + "return [adapter('x', links=['a'])]", "links is ['a'], must be a mapping of strings to"),
    "summary": (HOOK + "return [adapter('x', summary=None)]", "summary is None, must be a string"),
    "count": (
        "@hookimpl\ndef perceiver_models():\n    return [ModelSpec('x', 'mlm', {}, '12M', '')]",
        "num_parameters is '12M', must be a whole number",
    ),
    "twice": (HOOK + "return [adapter('of-twice')] * 2", "input adapter 'of-twice' is registered twice"),
    "no-such-hook": (
        "@hookimpl\ndef perceiver_adaptors(): return []",
        "unknown hook 'perceiver_adaptors'; did you mean 'perceiver_adapters'",
    ),
    "argument": (
        "@hookimpl\ndef perceiver_adapters(registry): return []",
        "its hooks cannot be read: PluginValidationError",
    ),
    "wrapper": (
        "@hookimpl(wrapper=True)\ndef perceiver_adapters():\n    yield\n    return []",
        "perceiver_adapters is a hook wrapper, which plugins cannot register (mark it with @hookimpl without "
        "wrapper=True, and return specs)",
    ),
    "old-wrapper": (
        "@hookimpl(hookwrapper=True)\ndef perceiver_tasks(): return []",
        "perceiver_tasks is a hook wrapper, which plugins cannot register (mark it with @hookimpl without "
        "hookwrapper=True, and return specs)",
    ),
    "renamed-wrapper": (
        "@hookimpl(wrapper=True, specname='perceiver_data')\ndef anything():\n    yield",
        "perceiver_data is a hook wrapper",
    ),
    "no-hooks": ("del perceiver_models", "it registers nothing: no function in it is marked with @hookimpl"),
    "newer": (
        "PERCEIVER_INTERFACE = '2.99'",
        f"written for interface 2.99, but this is {OURS}: upgrade perceiver-zoo",
    ),
    "much-newer": (
        "PERCEIVER_INTERFACE = '3.0'",
        f"written for interface 3.0, but this is {OURS}: upgrade perceiver-zoo",
    ),
    "older": ("PERCEIVER_INTERFACE = '0.9'", f"written for interface 0.9, but this is {OURS}: upgrade it"),
    "number-of-interface": (
        "PERCEIVER_INTERFACE = 1.0",
        f"PERCEIVER_INTERFACE = 1.0: expected a string such as {OURS!r}",
    ),
}
"""Source code of faulty plugins, and expected parts of their error messages."""

GOOD = """
print("hello from a plugin")

from perceiver_registry import AdapterSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"

@hookimpl
def perceiver_adapters():
    print("hello from a hook")
    yield AdapterSpec("wave", "input", "talkative_adapters:Wave", "talkative_adapters:WaveConfig", "waves")
"""
GOOD_ADAPTERS = "import sys\nprint('hello from an adapter')\nsys.exit('no sound card')\n"


def names(result: Result) -> set[str]:
    assert result.code == 0, result.err
    return {row["name"] for row in json.loads(result.out)}


def write_metadata(environment: FreshEnvironment, name: str, files: dict[str, bytes]) -> None:
    """Create an installed distribution that consists of metadata only."""
    packages = next((environment.folder / "lib").glob("python*/site-packages"))
    folder = packages / f"{name}-1.0.dist-info"
    folder.mkdir()
    for file, content in files.items():
        (folder / file).write_bytes(content)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """Environment with all faulty distributions, some with damaged or missing metadata, and a valid one."""
    folder = tmp_path_factory.mktemp("broken")
    wheels = [
        write_wheel(
            folder,
            f"{name}-dist",
            {f"{name.replace('-', '_')}_plugin.py": ABOVE.format(name=name) + body},
            plugins={name: f"{name.replace('-', '_')}_plugin"},
        )
        for name, (body, _) in BROKEN.items()
    ]
    files = {"talkative.py": GOOD, "talkative_adapters.py": GOOD_ADAPTERS}
    wheels.append(write_wheel(folder, "talkative", files, plugins={"talkative": "talkative"}))
    wheels.append(write_wheel(folder, "nowhere", {}, plugins={"nowhere": "not a module!"}))
    environment = FreshEnvironment(folder / "environment")
    environment.install(*wheels)
    for name, metadata, points in (
        ("bytes", b"Name: \xff\xfe", b"[perceiver]\nbytes = talkative\n"),
        ("nameless", b"Summary: nothing\n", b"[perceiver]\nnameless = talkative\n"),
        ("unrelated", b"\xff", b"[console_scripts]\nunrelated = unrelated:main\n"),
    ):
        write_metadata(environment, name, {"METADATA": metadata, "entry_points.txt": points})
    write_metadata(environment, "bare", {"entry_points.txt": b"[perceiver]\nbare = talkative\n"})
    return environment


@pytest.fixture(scope="module")
def listed(environment: FreshEnvironment) -> Result:
    """Result of ``list-adapters`` in that environment."""
    return environment.perceiver("list-adapters", "--format=json")


@pytest.fixture(scope="module")
def reports(listed: Result) -> list[str]:
    """Reported lines about plugins that failed."""
    return [line for line in listed.err.splitlines() if line.startswith("perceiver: ")]


def test_other_plugins_work(listed):
    assert {"text", "image-pixels", "composite", "wave"} <= names(listed)


def test_printed_text_of_plugins_goes_to_standard_error(listed):
    json.loads(listed.out)
    assert listed.err.count("hello from a plugin") == 1
    assert listed.err.count("hello from a hook") == 1


@pytest.mark.parametrize("name", BROKEN)
def test_failed_plugins_are_reported_in_one_line(reports, name):
    (line,) = [line for line in reports if f"plugin {name!r} of {name}-dist 1.0 failed: " in line]
    assert BROKEN[name][1] in line
    assert line.endswith(" (perceiver plugins --debug shows the traceback)")
    assert line.isprintable()
    assert len(line) < 500


@pytest.mark.parametrize("name", ["bytes", "nameless", "bare"])
def test_unreadable_metadata_is_reported(reports, name):
    (line,) = [line for line in reports if f" {name}-1.0.dist-info ? failed: " in line]
    assert "its metadata cannot be read: " in line


def test_unreadable_entry_points_are_reported(tmp_path):
    environment = FreshEnvironment(tmp_path / "environment")
    write_metadata(environment, "points", {"METADATA": b"Name: points\nVersion: 1.0\n", "entry_points.txt": b"\xff"})
    shown = environment.perceiver("list-tasks", "--format=json")
    assert "mlm" in names(shown)
    (line,) = shown.err.splitlines()
    assert "points-1.0.dist-info ? failed: its metadata cannot be read: UnicodeDecodeError" in line


def test_invalid_entry_points_are_reported(reports):
    (line,) = [line for line in reports if "'nowhere' of nowhere 1.0" in line]
    assert "cannot be imported" in line


def test_standard_error_has_no_other_lines(listed, reports):
    assert len(reports) == len(BROKEN) + 4
    assert len(listed.err.splitlines()) == len(reports) + 2


@pytest.mark.parametrize("command", ["list-adapters", "list-data", "list-tasks", "list-models"])
def test_failed_plugins_register_nothing(environment, command):
    found = names(environment.perceiver(command, "--format=json"))
    assert not [name for name in found if name.startswith("of-")]
    assert found - {"wave"}


def test_plugins_command_shows_status_and_error_of_each(environment):
    rows = {row["name"]: row for row in json.loads(environment.perceiver("plugins", "--format=json").out)}
    for name, (_, reason) in BROKEN.items():
        assert rows[name]["status"] == "failed"
        assert reason in rows[name]["error"]
        assert rows[name]["provides"] == {}
    good = rows["talkative"]
    assert (good["status"], good["error"], good["interface"]) == ("ok", None, "2.0")
    assert good["provides"] == {"input": ["wave"]}
    assert (rows["text"]["status"], rows["text"]["distribution"]) == ("ok", "perceiver-zoo")


def test_debug_shows_tracebacks(environment):
    shown = environment.perceiver("plugins", "raises", "--debug")
    assert re.search(r'File ".*raises_plugin.py", line \d+, in perceiver_adapters\n', shown.err)
    assert "KeyError: 'oops'" in shown.out
    assert "Traceback" not in environment.perceiver("plugins", "raises").err


@pytest.mark.parametrize("variable", ["LOCAL_RANK", "RANK", "SLURM_PROCID"])
def test_only_the_first_of_several_processes_reports(environment, variable):
    assert "failed" not in environment.perceiver("plugins", "raises", **{variable: "1"}).err
    if variable == "RANK":
        assert "'raises' of raises-dist" in environment.perceiver("plugins", "raises", **{variable: "0"}).err


def test_unknown_name_with_failed_distribution_shows_its_error(environment):
    needed = environment.perceiver("describe", "missing-import-dist:spectrogram")
    assert needed.code == 2
    line = needed.err.splitlines()[-1]
    assert "unknown name 'missing-import-dist:spectrogram'" in line
    assert "plugin 'missing-import' of missing-import-dist 1.0 failed: cannot be imported: ModuleNotFoundErr" in line
    assert "raises-dist" not in line


def test_unknown_name_lists_failed_plugins(environment):
    selected = "--plugins=missing-import,raises-dist,perceiver-zoo"
    line = environment.perceiver("describe", "spectrogram", selected).err.splitlines()[-1]
    assert "unknown name 'spectrogram'" in line
    assert "plugin 'missing-import' of missing-import-dist 1.0 failed" in line
    assert "plugin 'raises' of raises-dist 1.0 failed" in line
    assert "disabled plugins: argument, " in line
    assert line.endswith(" more plugins are disabled)")


def test_unimportable_adapter_is_an_error_on_first_use(environment):
    used = environment.perceiver("describe", "wave", "--format=json")
    assert (used.code, used.out) == (2, "")
    assert "input adapter 'wave' (plugin 'talkative' of talkative 1.0)" in used.err.splitlines()[-1]
    assert used.err.splitlines()[-1].endswith("SystemExit: no sound card")


NEEDS = """
import sys, torch
from perceiver_registry import UserError, read_checkpoint

def checkpoint(kind, name, distribution, version):
    used = [{"kind": kind, "name": name, "distribution": distribution, "version": version}]
    model = {part: {"adapter": name} for part in ("encoder", "decoder")}
    description = {"format": 1, "task": "mlm", "model": model, "data": {}, "run": {}, "plugins": used}
    torch.save({"perceiver": description, "state_dict": {}}, "some.ckpt")

for line in sys.argv[1:]:
    checkpoint(*line.split("|"))
    try:
        read_checkpoint("some.ckpt")
    except UserError as error:
        print(error)
"""


def test_missing_plugins_of_checkpoints_are_reported_with_the_remedy(environment):
    needs = [
        "input|spectrogram|missing-import-dist|0.9",
        "input|spectrogram|never-installed|0.9",
        "task|tagging|never-installed|0.9+local.3",
        "input|spectrogram|talkative|0.9",
        "input|spectrogram|my_adapters.py|local file",
        "output|text|older-dist|0.9",
    ]
    variables = {"PERCEIVER_DISABLE_PLUGINS": "older"}
    lines = environment.python("-c", NEEDS, *needs, **variables).out.splitlines()
    lines = [line for line in lines if line.startswith("some.ckpt: ")]
    asked = "some.ckpt: needs the input adapter 'spectrogram' of"
    assert lines[0].startswith(f"{asked} missing-import-dist 0.9, but plugin 'missing-import' of missing-import-dist")
    assert "1.0 failed: cannot be imported: ModuleNotFoundError" in lines[0]
    assert lines[1] == f"{asked} never-installed 0.9: pip install never-installed==0.9"
    assert lines[2] == "some.ckpt: needs the task 'tagging' of never-installed 0.9+local.3: pip install never-installed"
    assert lines[3] == f"{asked} talkative 0.9, which talkative 1.0 does not register: pip install talkative==0.9"
    assert (
        lines[4] == f"{asked} my_adapters.py, a file that is not installed: give it with --plugin=PATH/my_adapters.py"
    )
    assert lines[5].endswith("of older-dist 0.9, but plugin 'older' of older-dist 1.0 is disabled")
    assert len(lines) == len(needs)


def test_disabled_plugins_are_not_imported(environment):
    for flag, variable in (("--plugins=text,table", None), (None, ",".join([*BROKEN, "nowhere", "talkative"]))):
        flags = [flag] if flag else []
        variables = {"PERCEIVER_DISABLE_PLUGINS": variable} if variable else {}
        shown = environment.perceiver("plugins", *flags, "--format=json", **variables)
        reported = [line for line in shown.err.splitlines() if "metadata" not in line]
        assert reported == []
        status = {row["name"]: row["status"] for row in json.loads(shown.out)}
        assert status["text"] == "ok"
        assert status["exits"] == status["talkative"] == "disabled"
