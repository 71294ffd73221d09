"""``perceiver new-plugin``: what it makes installs, trains and passes its own tests as it is."""

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
"""What ``--task`` makes."""

IMPORTS = """
import sys
from perceiver_cli.main import main
code = main(["new-plugin", "my-audio"])
print(code, sorted({"torch", "numpy", "pytorch_lightning", "jsonargparse"} & set(sys.modules)))
"""


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


# What is made


@pytest.fixture(scope="module")
def made(start, finish, tmp_path_factory) -> Path:
    """The folder of a package with a task that the command made. Not to be changed."""
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
    """An environment that the package's own CI script has installed wheels of this project and of the package into,
    and what the package's tests said there.
    """
    fresh = FreshEnvironment(tmp_path_factory.mktemp("environment") / "venv")
    # No package index: the environment sees what both depend on, and what builds them. In the environment, the
    # option --no-build-isolation is said by this variable's being false.
    pip = {"PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "false", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PL_", "PYTHONPATH"))}
    variables = inherited | pip | {"VENV": str(fresh.folder), "PERCEIVER_ZOO": str(ROOT)}
    command = [made / ".ci" / "run", "-p", "no:cacheprovider", "--verbose"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return fresh, done.stdout


@pytest.fixture(scope="module")
def fresh(tested) -> FreshEnvironment:
    """That environment."""
    return tested[0]


def test_the_files_are_these(made):
    assert files_in(made) == TASK_FILES
    assert (made / ".ci" / "run").stat().st_mode & stat.S_IXUSR
    plugin = ast.parse((made / "src" / "my_audio" / "plugin.py").read_text())
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in plugin.body if isinstance(node, ast.Assign)}
    assert values == {"PERCEIVER_INTERFACE": INTERFACE_VERSION}
    for name in TASK_FILES:
        text = (made / name).read_text()
        assert "MODULE" not in text
        assert "Prefix" not in text


def test_its_own_tests_pass_where_both_are_installed_as_wheels(tested, made):
    fresh, said = tested
    assert re.search(r"^=+ \d+ passed in .*=$", said, flags=re.MULTILINE), said  # none failed, none was skipped
    for name in (
        "test_the_plugin_keeps_its_contract",
        "test_a_trained_model_knows_the_classes_of_new_files",
        "test_the_task_keeps_its_contract",
        "test_a_trained_model_finds_noise_unusual",
    ):
        assert f"::{name} PASSED" in said
    place = fresh.python("-c", "import my_audio, perceiver_cli; print(my_audio.__file__, perceiver_cli.__file__)")
    assert [Path(path).is_relative_to(fresh.folder) for path in place.out.split()] == [True, True]
    assert not (made / "dist").exists()


def test_it_stands_in_the_listings(fresh):
    rows = json.loads(fresh.perceiver("list-adapters", "my-*", "--format=json").out)
    assert [(row["name"], row["kind"], row["distribution"], row["version"]) for row in rows] == [
        ("my-audio", "input", "my-audio", "0.1.0"),
        ("my-audio", "output", "my-audio", "0.1.0"),
        ("my-audio-reconstruction", "output", "my-audio", "0.1.0"),
    ]


def test_its_input_trains_on_own_files_with_a_built_in_output_and_predicts(fresh, tmp_path):
    assert fresh.python("-m", "my_audio.toy", "signals", cwd=tmp_path).code == 0
    csv = tmp_path / "signals" / "low" / "more.csv"
    csv.write_text("\n".join(str(number % 5) for number in range(400)))  # longer than what is read of a signal
    flags = ["--data=my-audio", "--data.path=signals", "--model.decoder=classification", "--trainer.max_epochs=1"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    trained = fresh.perceiver("fit", "--task=classification", *flags, *quiet, cwd=tmp_path)
    assert trained.code == 0, trained.err
    inputs = ["signals/high", str(csv), "no-such.npy"]
    predicted = fresh.perceiver("predict", "--ckpt_path=best", *inputs, "--format=json", cwd=tmp_path)
    assert predicted.code == 1  # for the one that is missing; the others are predicted
    predictions = json.loads(predicted.out)
    highs = sorted((tmp_path / "signals" / "high").iterdir())
    assert [Path(each["input"]).name for each in predictions] == [*(path.name for path in highs), "more.csv"]
    assert {each["label"] for each in predictions} <= {"high", "low", "middle"}
    source, line = predicted.err.splitlines()
    assert source.startswith("perceiver: predicting with ")
    assert "no-such.npy: cannot be read (No such file or directory)" in line


def test_a_name_that_is_installed_is_taken(fresh, tmp_path):
    result = fresh.perceiver("new-plugin", "My Audio", cwd=tmp_path)
    assert result.code == 2
    assert result.err == (
        "perceiver: NAME 'my-audio': this is the name of the plugin 'my-audio' of my-audio 0.1.0 already; "
        "'my-my-audio' would do\n"
    )
    # The command as it is installed from a wheel, with its templates.
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
def test_names_are_derived_and_the_code_is_in_good_style(perceiver, tmp_path, written, name, module, prefix):
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
    # Formatted and clean whatever the length of the name, by ruff's own settings.
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
        ("3d-sound", "begins with a letter"),
        ("_private", "ASCII letters and digits"),
        ("class", "a keyword of Python"),
        ("a" * 31, "30 characters at most"),
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
def test_a_name_that_will_not_do_is_an_error_that_says_one_that_does(perceiver, tmp_path, written, wrong):
    result = perceiver("new-plugin", written)
    assert wrong in result.error
    assert list(tmp_path.iterdir()) == []
    proposed = re.search(r"; '([^']+)' would do$", result.error).group(1)
    assert perceiver("new-plugin", proposed).code == 0
    assert [path.name for path in tmp_path.iterdir()] == [proposed]


def test_the_name_of_the_task_must_be_free_too(perceiver, monkeypatch):
    monkeypatch.setattr(scaffold, "TASK", "perceiver")
    assert "the model of the plugin 'text'" in perceiver("new-plugin", "language", "--task").error
    assert perceiver("new-plugin", "language").code == 0


def test_a_folder_of_that_name_is_no_installed_module(start, finish, tmp_path):
    (tmp_path / "recordings").mkdir()
    # As a module, the command finds packages where it is run.
    command = [sys.executable, "-m", "perceiver_cli", "new-plugin", "recordings", "--folder=plugin"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "recordings" / "__init__.py").touch()
    command[-1] = "--folder=other"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the installed module recordings" in done.stderr


# Where it is made


@pytest.mark.parametrize("folder", ["new", "empty", ".", "below/../new", "a folder"])
def test_the_folder_is_new_or_empty(perceiver, tmp_path, monkeypatch, folder):
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
    assert {path.name for path in tmp_path.iterdir()} <= {"below", "empty", "new", "a folder"}  # no draft is left


def test_what_is_there_is_left_alone(perceiver, tmp_path):
    (tmp_path / "my-audio").mkdir()
    (tmp_path / "my-audio" / ".mine").write_text("mine")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert "there is something already" in perceiver("new-plugin", "my-audio").error
    assert "there is something already" in perceiver("new-plugin", "my-audio", "--folder=file").error
    assert "cannot be written" in perceiver("new-plugin", "my-audio", "--folder=file/below").error
    assert "cannot be written" in perceiver("new-plugin", "my-audio", "--folder=no/such").error
    assert "cannot be written" in perceiver("new-plugin", "my-audio", "--folder=nowhere").error
    assert files_in(tmp_path) == {"my-audio/.mine", "file"}
    assert {path.name for path in tmp_path.iterdir()} == {"my-audio", "file", "nowhere"}


@pytest.mark.parametrize("folder", ["my-audio", "empty"])
def test_a_package_that_cannot_be_written_as_a_whole_is_not_written_at_all(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    # No file may be larger than a kilobyte: the first ones can be written, later ones cannot.
    limited = f'ulimit -f 1 && exec "$0" -B -m perceiver_cli new-plugin my-audio --folder={folder}'
    done = subprocess.run(
        ["bash", "-c", limited, sys.executable], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"perceiver: --folder={folder}: cannot be written: File too large\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


# The command


def test_it_imports_nothing_slow(tmp_path):
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
        (["my-audio", "--foldr=x"], "unknown flag --foldr; did you mean '--folder'?"),
    ],
)
def test_wrong_use_is_one_line(perceiver, tmp_path, arguments, wrong):
    assert wrong in perceiver("new-plugin", *arguments).error
    assert list(tmp_path.iterdir()) == []
