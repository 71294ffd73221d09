"""examples/perceiver-spectrogram: its tests pass, and it can be installed, used and uninstalled."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from environments import FreshEnvironment
from recordings import write_tones

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "perceiver-spectrogram"
TUTORIAL = (ROOT / "docs" / "your-own-modality.md").read_text(encoding="utf-8")

WORDS = ("--task=classification", "--model.encoder=spectrogram", "--data=spoken-digits")
QUICK = ("--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--model.num_latents=4")

PYTEST = """
import sys
import pytest

sys.dont_write_bytecode = True
print("exit code", int(pytest.main({options})))
"""


@pytest.fixture
def environment(tmp_path: Path) -> FreshEnvironment:
    environment = FreshEnvironment(tmp_path / "venv")
    environment.install(EXAMPLE)
    return environment


def test_tests_of_the_package(environment, tmp_path):
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'own'}", str(EXAMPLE / "tests")]
    result = environment.commands({}, code=PYTEST.format(options=options))["code"]
    assert result.out.splitlines()[-1] == "exit code 0", result.out


def test_checkpoint_without_the_package_reports_what_to_install(environment, tmp_path):
    write_tones(tmp_path / "tones")
    commands = {
        "fit": ["fit", *WORDS, "--data.path=tones", *QUICK],
        "predict": ["predict", "--ckpt_path=best", "tones/low_nobody_7.wav", "--format=json"],
    }
    results = environment.commands(commands, cwd=tmp_path)
    assert results["fit"].code == 0, results["fit"].err
    (prediction,) = json.loads(results["predict"].out)
    assert prediction["input"] == "tones/low_nobody_7.wav"

    environment.uninstall("perceiver-spectrogram")
    result = environment.commands({"predict": commands["predict"]}, cwd=tmp_path)["predict"]
    assert result.code == 2
    assert result.out == ""
    (line,) = result.err.splitlines()
    (message,) = re.findall(r"^    perceiver: (best\.ckpt: needs .*)$", TUTORIAL, re.MULTILINE)
    assert line.startswith("perceiver: ")
    assert line.endswith(f"/checkpoints/{message}")
    for part in ("'spectrogram'", "perceiver-spectrogram 0.1.0", "pip install perceiver-spectrogram"):
        assert part in message
