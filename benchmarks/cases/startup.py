"""Whole processes of commands that import no torch, with a warm cache; also with twenty more plugins."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.case import Case, Comparison, Contender, Job, Options

SCRIPT = Path(sys.executable).with_name("perceiver")
PERCEIVER = (
    [str(SCRIPT)]
    if SCRIPT.exists()  # if not, what it would do
    else [sys.executable, "-c", "import sys; from perceiver_cli.main import main; sys.exit(main())"]
)
COMMANDS = {
    "perceiver --help": [*PERCEIVER, "--help"],
    "perceiver --version": [*PERCEIVER, "--version"],
    "perceiver list-adapters": [*PERCEIVER, "list-adapters"],
    "perceiver list-adapters --format=json": [*PERCEIVER, "list-adapters", "--format=json"],
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "python -c 'import pytorch_lightning'": [sys.executable, "-c", "import pytorch_lightning"],
}
WITH_PLUGINS = ("perceiver list-adapters", "perceiver list-adapters --format=json")
NUM_PLUGINS = 20
PLUGIN = """
from perceiver_registry import AdapterSpec, hookimpl

PERCEIVER_INTERFACE = "2.0"


@hookimpl
def perceiver_adapters():
    return [
        AdapterSpec(f"{name}-{{kind}}", kind, "{name}.adapters:Adapter", "{name}.adapters:Config", "an adapter")
        for kind in ("input", "output")
    ]
"""


def comparisons(options: Options) -> list[Comparison]:
    contenders = [Contender(f"`{name}`", f"{__name__}:process", {"command": COMMANDS[name]}) for name in COMMANDS]
    contenders += [
        Contender(
            f"`{name}`, {NUM_PLUGINS} more plugins",
            f"{__name__}:process",
            {"command": COMMANDS[name], "num_plugins": NUM_PLUGINS},
        )
        for name in WITH_PLUGINS
    ]
    return [Comparison(tuple(contenders[:2] if options.quick else contenders))]


def process(options: Options, command: list[str], num_plugins: int = 0) -> Job:
    """Runs a command in a process of its own."""
    if options.clock == "cpu":
        raise ValueError("whole processes are timed by the wall clock: leave out --clock=cpu")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    folder = tempfile.TemporaryDirectory()
    if num_plugins:
        install(Path(folder.name), num_plugins)
        environment["PYTHONPATH"] = folder.name

    def run() -> None:
        assert Path(folder.name).exists()  # it is deleted with this function
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

    return Job(run)


def install(folder: Path, number: int) -> None:
    """Puts so many distributions with a plugin each into ``folder``, as pip would."""
    for name in (f"plugin{i}" for i in range(number)):
        package, info = folder / name, folder / f"{name}-1.0.dist-info"
        package.mkdir()
        info.mkdir()
        (package / "__init__.py").touch()
        (package / "plugin.py").write_text(PLUGIN.format(name=name))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[perceiver]\n{name} = {name}.plugin\n")


CASES = [
    Case(
        "startup",
        "Start-up",
        "Whole processes of commands that import no torch, with a warm cache.",
        comparisons,
        memory=False,
        device="cpu",
    )
]
