"""``perceiver new-plugin``: the created package installs, trains and passes its tests."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from environments import FreshEnvironment

from perceiver_cli import scaffold
from perceiver_registry import INTERFACE_VERSION

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).with_name("ruff")

FILES = {
    ".ci/run",
    ".gitignore",
    "README.md",
    "pyproject.toml",
    "src/my_audio/__init__.py",
    "src/my_audio/data.py",
    "src/my_audio/input_adapter.py",
    "src/my_audio/output_adapter.py",
    "src/my_audio/plugin.py",
    "src/my_audio/reading.py",
    "src/my_audio/signals.py",
    "src/my_audio/toy.py",
    "tests/test_plugin.py",
    "tests/test_training.py",
}

TASK_FILES = FILES | {
    "src/my_audio/reconstruction/README.md",
    "src/my_audio/reconstruction/__init__.py",
    "src/my_audio/reconstruction/lightning.py",
    "src/my_audio/reconstruction/output_adapter.py",
    "src/my_audio/reconstruction/plugin.py",
    "src/my_audio/reconstruction/prediction.py",
    "tests/test_reconstruction.py",
}
"""Files of a package with ``--task``."""

IMPORTS = """
import sys
from perceiver_cli.main import main
code = main(["new-plugin", "my-audio"])
print(code, sorted({"torch", "numpy", "pytorch_lightning", "jsonargparse"} & set(sys.modules)))
"""


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# Files


@pytest.fixture(scope="module")
def made(start, finish, tmp_path_factory) -> Path:
    """Folder of a created package with a task. Read-only."""
    cwd = tmp_path_factory.mktemp("made")
    result = finish(start("new-plugin", "my-audio", "--task", cwd=cwd))
    assert result.code == 0, result.err
    assert result.err == ""
    for command in (
        "cd my-audio",
        "pip install -e '.[test]'",
        "pytest",
        "perceiver fit --task=classification",
        "perceiver fit --task=my-audio-reconstruction",
    ):
        assert f"\n  {command}" in result.out
    return cwd / "my-audio"


@pytest.fixture(scope="module")
def tested(made, tmp_path_factory) -> tuple[FreshEnvironment, str]:
    """Environment into which the package's CI script installed wheels of both projects, and the output of its tests."""
    fresh = FreshEnvironment(tmp_path_factory.mktemp("environment") / "venv")
    # Without a package index: dependencies and build tools come from the surrounding environment.
    # PIP_NO_BUILD_ISOLATION=false means --no-build-isolation.
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PL_", "PYTHONPATH"))}
    variables = inherited | pip | {"VENV": str(fresh.folder), "PERCEIVER_ZOO": str(ROOT)}
    command = [made / ".ci" / "run", "-p", "no:cacheprovider", "--verbose"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return fresh, done.stdout


@pytest.fixture(scope="module")
def fresh(tested) -> FreshEnvironment:
    """The environment of :func:`tested`."""
    return tested[0]


def test_created_files(made):
    assert files_in(made) == TASK_FILES
    assert (made / ".ci" / "run").stat().st_mode & stat.S_IXUSR
    plugin = ast.parse((made / "src" / "my_audio" / "plugin.py").read_text())
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in plugin.body if isinstance(node, ast.Assign)}
    assert values == {"PERCEIVER_INTERFACE": INTERFACE_VERSION}
    for name in TASK_FILES:
        text = (made / name).read_text()
        assert "MODULE" not in text
        assert "Prefix" not in text


@pytest.mark.exhaustive
def test_tests_of_the_package_pass_with_wheels(tested, made):
    fresh, output = tested
    assert re.search(r"^=+ \d+ passed in .*=$", output, flags=re.MULTILINE), output  # no failed or skipped test
    for name in (
        "test_the_plugin_keeps_its_contract",
        "test_trained_model_classifies_new_files",
        "test_the_task_keeps_its_contract",
        "test_a_trained_model_finds_noise_unusual",
    ):
        assert f"::{name} PASSED" in output
    files = fresh.python("-c", "import my_audio, perceiver_cli; print(my_audio.__file__, perceiver_cli.__file__)")
    assert [Path(path).is_relative_to(fresh.folder) for path in files.out.split()] == [True, True]
    assert not (made / "dist").exists()


@pytest.mark.exhaustive
def test_package_is_listed(fresh):
    rows = json.loads(fresh.perceiver("list-adapters", "my-*", "--format=json").out)
    assert [(row["name"], row["kind"], row["distribution"], row["version"]) for row in rows] == [
        ("my-audio", "input", "my-audio", "0.1.0"),
        ("my-audio", "output", "my-audio", "0.1.0"),
        ("my-audio-reconstruction", "output", "my-audio", "0.1.0"),
    ]


@pytest.mark.exhaustive
def test_package_trains_and_predicts_on_files(fresh, tmp_path):
    assert fresh.python("-m", "my_audio.toy", "signals", cwd=tmp_path).code == 0
    csv = tmp_path / "signals" / "low" / "more.csv"
    csv.write_text("\n".join(str(number % 5) for number in range(400)))  # longer than the part of a signal that is read
    flags = ["--data=my-audio", "--data.path=signals", "--model.decoder=classification", "--trainer.max_epochs=1"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    inputs = ["signals/high", str(csv), "no-such.npy"]
    commands = {
        "fit": ["fit", "--task=classification", *flags, *quiet],
        "predict": ["predict", "--ckpt_path=best", *inputs, "--format=json"],
    }
    results = fresh.commands(commands, cwd=tmp_path)
    assert results["fit"].code == 0, results["fit"].err
    predicted = results["predict"]
    assert predicted.code == 1  # a missing input; the others are predicted
    predictions = json.loads(predicted.out)
    highs = sorted((tmp_path / "signals" / "high").iterdir())
    assert [Path(each["input"]).name for each in predictions] == [*(path.name for path in highs), "more.csv"]
    assert {each["label"] for each in predictions} <= {"high", "low", "middle"}
    source, line = predicted.err.splitlines()
    assert source.startswith("perceiver: predicting with ")
    assert "no-such.npy: cannot be read (No such file or directory)" in line


@pytest.mark.exhaustive
def test_installed_name_is_refused(fresh, tmp_path):
    result = fresh.perceiver("new-plugin", "My Audio", cwd=tmp_path)
    assert result.code == 2
    assert result.err == (
        "perceiver: NAME 'my-audio': already the name of the plugin 'my-audio' of my-audio 0.1.0 "
        "(example: 'my-my-audio')\n"
    )
    # The wheel of the command contains its templates.
    assert fresh.perceiver("new-plugin", "my-my-audio", cwd=tmp_path).code == 0
    assert len(files_in(tmp_path / "my-my-audio")) == len(FILES)


# Names


@pytest.mark.parametrize(
    ("written", "name", "module", "prefix"),
    [
        ("my-audio", "my-audio", "my_audio", "MyAudio"),
        ("my_audio", "my-audio", "my_audio", "MyAudio"),
        ("My Audio", "my-audio", "my_audio", "MyAudio"),
        ("EEG", "eeg", "eeg", "EEG"),
        ("zz.top-3d", "zz-top-3d", "zz_top_3d", "ZzTop3d"),
        ("q", "q", "q", "Q"),
        ("mmmmmmmmmm-wwwwwwwww-mmmmmmmmm", "mmmmmmmmmm-wwwwwwwww-mmmmmmmmm", "mmmmmmmmmm_wwwwwwwww_mmmmmmmmm", None),
    ],
)
def test_names_are_derived_and_code_is_formatted(perceiver, tmp_path, written, name, module, prefix):
    result = perceiver("new-plugin", written)
    assert result.code == 0, result.err
    folder = tmp_path / name
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == name
    assert project["project"]["entry-points"]["perceiver"] == {name: f"{module}.plugin"}
    assert project["project"]["license"]
    sources = {path.stem: ast.parse(path.read_text()) for path in (folder / "src" / module).glob("*.py")}
    classes = {node.name for tree in sources.values() for node in tree.body if isinstance(node, ast.ClassDef)}
    prefix = prefix or "MmmmmmmmmmWwwwwwwwwMmmmmmmmm"
    own = ("InputAdapter", "EncoderConfig", "OutputAdapter", "DecoderConfig", "DataModule", "Reader")
    assert {f"{prefix}{kind}" for kind in own} <= classes
    assert perceiver("new-plugin", written, "--task", "--folder=with-task").code == 0
    project = tomllib.loads((tmp_path / "with-task" / "pyproject.toml").read_text())
    points = {name: f"{module}.plugin", f"{name}-reconstruction": f"{module}.reconstruction.plugin"}
    assert project["project"]["entry-points"]["perceiver"] == points
    # Formatted and clean with ruff's default settings for any length of the name.
    for arguments in (["check"], ["format", "--check", "--diff"]):
        command = [RUFF, *arguments, "--no-cache", name, "with-task"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ("müsik", "ASCII letters and digits"),
        ("音", "ASCII letters and digits"),
        ("my/audio", "ASCII letters and digits"),
        ("../audio", "ASCII letters and digits"),
        ("audio-", "ASCII letters and digits"),
        ("", "ASCII letters and digits"),
        ("3d-sound", "must begin with a letter"),
        ("_private", "ASCII letters and digits"),
        ("class", "a Python keyword"),
        ("a" * 31, "at most 30 characters"),
        ("text", "the plugin 'text' of perceiver-zoo"),
        ("image-pixels", "the input adapter of the plugin 'image' of perceiver-zoo"),
        ("Digits", "the data module of the plugin 'image' of perceiver-zoo"),
        ("language-perceiver", "the model of the plugin 'text' of perceiver-zoo"),
        ("checkpoints", "the plugin 'checkpoints' of perceiver-zoo"),
        ("perceiver", "this project"),
        ("perceiver-zoo", "the installed package perceiver-zoo"),
        ("scikit-learn", "the installed package scikit-learn"),
        ("sklearn", "the installed module sklearn"),
        ("json", "the installed module json"),
        ("sys", "the installed module sys"),
    ],
)
def test_invalid_name_is_reported_with_a_valid_one(perceiver, tmp_path, written, wrong):
    result = perceiver("new-plugin", written)
    assert wrong in result.error
    assert list(tmp_path.iterdir()) == []
    proposed = re.search(r" \(example: '([^']+)'\)$", result.error).group(1)
    assert perceiver("new-plugin", proposed).code == 0
    assert [path.name for path in tmp_path.iterdir()] == [proposed]


def test_name_of_the_task_must_be_free(perceiver, monkeypatch):
    monkeypatch.setattr(scaffold, "TASK", "perceiver")
    assert "the model of the plugin 'text'" in perceiver("new-plugin", "language", "--task").error
    assert perceiver("new-plugin", "language").code == 0


def test_folder_with_the_name_is_not_an_installed_module(start, finish, tmp_path):
    (tmp_path / "recordings").mkdir()
    # With -m, Python imports packages from the current folder.
    command = [sys.executable, "-m", "perceiver_cli", "new-plugin", "recordings", "--folder=plugin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "recordings" / "__init__.py").touch()
    command[-1] = "--folder=other"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the installed module recordings" in done.stderr


# Folder


@pytest.mark.parametrize("folder", ["new", "empty", ".", "below/../new", "a folder"])
def test_folder_may_be_new_or_empty(perceiver, tmp_path, monkeypatch, folder):
    (tmp_path / "below").mkdir()
    (tmp_path / "empty").mkdir()
    if folder == ".":
        monkeypatch.chdir(tmp_path / "empty")
    result = perceiver("new-plugin", "my-audio", f"--folder={folder}")
    assert result.code == 0, result.err
    assert files_in(Path(folder)) == FILES
    assert f"\n  cd {folder!r}\n" if " " in folder else f"\n  cd {folder}\n" in result.out
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((Path(folder) / "src").stat().st_mode) == 0o777 & ~umask
    assert {path.name for path in tmp_path.iterdir()} <= {"below", "empty", "new", "a folder"}  # no temporary folder


def test_existing_files_are_kept(perceiver, tmp_path):
    (tmp_path / "my-audio").mkdir()
    (tmp_path / "my-audio" / ".mine").write_text("mine")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert "already exists (give a new or empty folder)" in perceiver("new-plugin", "my-audio").error
    assert "already exists (give a new or empty folder)" in perceiver("new-plugin", "my-audio", "--folder=file").error
    assert "cannot be written" in perceiver("new-plugin", "my-audio", "--folder=file/below").error
    assert "cannot be written" in perceiver("new-plugin", "my-audio", "--folder=no/such").error
    assert "cannot be written" in perceiver("new-plugin", "my-audio", "--folder=nowhere").error
    assert files_in(tmp_path) == {"my-audio/.mine", "file"}
    assert {path.name for path in tmp_path.iterdir()} == {"my-audio", "file", "nowhere"}


@pytest.mark.parametrize("folder", ["my-audio", "empty"])
def test_failed_write_leaves_no_files(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    # With a limit of one kilobyte per file, some files can be written, others cannot.
    limited = f'ulimit -f 1 && exec "$0" -B -m perceiver_cli new-plugin my-audio --folder={folder}'
    done = subprocess.run(
        ["bash", "-c", limited, sys.executable], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"perceiver: --folder={folder}: cannot be written: File too large\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


# The command


def test_new_plugin_imports_nothing_slow(tmp_path):
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_help_explains(perceiver):
    shown = perceiver("new-plugin", "--help")
    assert shown.code == 0
    for words in ("NAME", "--folder DIR", "--task", "tests", "README", '"My Audio"', "--plugins=A,B"):
        assert words in shown.out
    assert "\n  new-plugin " in perceiver("--help").out


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "the following arguments are required: NAME"),
        (["My", "Audio"], "unrecognized arguments: Audio"),
        (["my-audio", "--foldr=x"], "--foldr: unknown flag (did you mean '--folder'?)"),
    ],
)
def test_wrong_use_is_one_line(perceiver, tmp_path, arguments, wrong):
    assert wrong in perceiver("new-plugin", *arguments).error
    assert list(tmp_path.iterdir()) == []
