"""docs/your-own-modality.md: the package is built from the page, and its commands run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from environments import FreshEnvironment
from recordings import write_tones

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-modality.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "perceiver-spectrogram"

BLOCK = re.compile(r"^\*\*`([^`]+)`\*\*\n\n(`{3,})\w+\n(.*?)^\2$", re.DOTALL | re.MULTILINE)
FILES = {name: text for name, _, text in BLOCK.findall(PAGE)}
"""Content of each file on the page."""

TRIAL = "trial.py"
"""File that is not part of the package."""

QUICK = (
    "--trainer.max_steps=4",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
    "--model.num_latents=4",
    "--data.batch_size=8",
)


def commands(start: str) -> list[list[str]]:
    """Return the arguments of the page's distinct command lines that begin with ``start``."""
    lines = [line.strip() for line in BLOCK.sub("", PAGE).splitlines() if line.strip().startswith(start)]
    return [shlex.split(line) for line in dict.fromkeys(lines)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the files of the page."""
    folder = tmp_path_factory.mktemp("perceiver-spectrogram")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def wheel(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel of the package, built with the page's command."""
    folder = tmp_path_factory.mktemp("project") / project.name
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns(TRIAL, "__pycache__", "logs"))
    ((_, *arguments),) = commands("pip wheel")
    offline = ["--no-index", "--no-build-isolation", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", *arguments, *offline], cwd=folder, check=True)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    """Environment without the package."""
    return FreshEnvironment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.mark.parametrize("name", [name for name in FILES if name != TRIAL])
def test_page_has_the_files_of_the_example(name):
    assert FILES[name] == (EXAMPLE / name).read_text(encoding="utf-8")


def test_page_has_all_files_of_the_package():
    package = {path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.glob("perceiver_spectrogram/*.py")}
    assert package | {"pyproject.toml", "README.md", TRIAL, "tests/test_plugin.py"} == set(FILES)


def test_plugin_file_works_without_installation(environment, project):
    listing, fit = (arguments[1:] for arguments in commands("perceiver") if "--plugin=./trial.py" in arguments)
    results = environment.commands({"listing": listing, "fit": [*fit, *QUICK]}, cwd=project)
    assert re.search(r"^spectrogram +input .* trial\.py +local file", results["listing"].out, re.MULTILINE)
    assert results["fit"].code == 0, results["fit"].err
    assert "Trained for 4 steps." in results["fit"].out


def test_commands_with_the_installed_package(environment, wheel, tmp_path):
    environment.install(wheel)
    tones = write_tones(tmp_path / "recordings")
    shutil.copy(tones / "low_nobody_7.wav", tmp_path / "recording.wav")
    shutil.make_archive(str(tmp_path / "recordings-5-24"), "zip", tones)
    lines = [arguments[1:] for arguments in commands("perceiver ") if "--plugin=./trial.py" not in arguments]
    quick = {
        "fit": QUICK,
        "test": [flag for flag in QUICK if flag.startswith("--trainer.")],
        "predict": ["--format=json"],
    }
    lines = [[*line, *quick.get(line[0], [])] for line in lines if line[0] != "new-plugin"]
    results = environment.commands({line[0]: line for line in lines}, cwd=tmp_path)
    for name in ("list-adapters", "plugins", "describe", "fit", "test", "predict"):
        assert results[name].code == 0, f"{name}: {results[name].err}"
    assert re.search(
        r"^spectrogram +input .* perceiver-spectrogram +0\.1\.0", results["list-adapters"].out, re.MULTILINE
    )
    assert "num_mel_bands" in results["describe"].out
    assert "test_accuracy" in results["test"].out
    predictions = json.loads(results["predict"].out)
    assert [prediction["input"] for prediction in predictions][:2] == ["recording.wav", "recordings/high_nobody_10.wav"]
    assert len(predictions) == 41
    assert {guess["label"] for prediction in predictions for guess in prediction["top"]} <= {"high", "low"}
