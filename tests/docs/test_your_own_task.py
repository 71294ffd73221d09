"""docs/your-own-task.md: it shows the files of ``perceiver new-plugin --task``, and its commands run."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from environments import FreshEnvironment

from perceiver_cli.main import main
from perceiver_cli.scaffold import Names, render

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-own-task.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^\*\*`([^`]+)`\*\*\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = dict(BLOCK.findall(PAGE))
"""Content of each file on the page."""

FILES = render(Names.of("my-signals"), task=True)
"""Files that the command generates."""

QUICK = (
    "--trainer.max_steps=3",
    "--trainer.val_check_interval=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
)

PYTHON = """
import runpy
import sys

for arguments in {commands}:
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__")
    else:
        exec(arguments[1])
"""


def commands(start: str) -> list[list[str]]:
    """Return the arguments of the page's distinct command lines that begin with ``start``."""
    lines = [line.strip() for line in BLOCK.sub("", PAGE).splitlines() if line.strip().startswith(f"{start} ")]
    return [shlex.split(line)[1:] for line in dict.fromkeys(lines)]


@pytest.mark.parametrize("name", SHOWN)
def test_page_has_the_generated_files(name):
    assert SHOWN[name] == FILES[name]


def test_page_has_all_modules_of_the_task():
    modules = {name for name in FILES if "reconstruction/" in name and name.endswith(".py")}
    assert {name for name in modules if not name.endswith("__init__.py")} == set(SHOWN)
    (points,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    generated = tomllib.loads(FILES["pyproject.toml"])["project"]["entry-points"]
    assert tomllib.loads(points)["project"]["entry-points"] == generated


def test_commands_of_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (new,) = [line for line in commands("perceiver") if line[0] == "new-plugin"]
    assert main(new) == 0
    assert "cd my-signals" in capsys.readouterr().out
    environment = FreshEnvironment(tmp_path / "venv")
    environment.install(tmp_path / "my-signals")

    quick = {"fit": QUICK, "test": ["--trainer.accelerator=cpu"], "predict": ["--format=json"]}
    named = {line[0]: [*line, *quick.get(line[0], ())] for line in commands("perceiver") if line != new}
    order = {name: named[name] for name in ("describe", "fit", "test", "predict")}
    assert order.keys() == named.keys()
    results = environment.commands(order, cwd=tmp_path, code=PYTHON.format(commands=commands("python")))
    for name, result in results.items():
        assert not result.code, f"{name}: {result.err}"
    assert "mean squared or mean absolute error of the samples" in results["describe"].out  # of the flag --task.loss
    assert "test_mae" in results["test"].out
    predictions = json.loads(results["predict"].out)
    assert [prediction["input"] for prediction in predictions] == ["signals/low/000.npy", "noise.npy"]
    assert all(prediction["error"] > 0 for prediction in predictions)
