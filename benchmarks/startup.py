"""Times the whole process of commands that import no torch, with a warm cache; also with twenty more plugins."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PERCEIVER = str(Path(sys.executable).with_name("perceiver"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "perceiver --version": [PERCEIVER, "--version"],
    "perceiver --help": [PERCEIVER, "--help"],
    "perceiver list-adapters": [PERCEIVER, "list-adapters"],
    "perceiver list-adapters --format=json": [PERCEIVER, "list-adapters", "--format=json"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
}
WITH_PLUGINS = {
    f"{command}, {{}} more plugins": COMMANDS[command]
    for command in ("perceiver list-adapters", "perceiver list-adapters --format=json")
}
PLUGIN = """
from perceiver_registry import AdapterSpec, hookimpl

PERCEIVER_INTERFACE = "1.0"


@hookimpl
def perceiver_adapters():
    return [
        AdapterSpec(f"{name}-{{kind}}", kind, "{name}.adapters:Adapter", "{name}.adapters:Config", "an adapter")
        for kind in ("input", "output")
    ]
"""


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


def seconds(command: list[str], environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--plugins", type=int, default=20, help="distributions with a plugin in the last cases")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), options.plugins)
        plain = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        cases = {name: (command, plain) for name, command in COMMANDS.items()}
        for name, command in WITH_PLUGINS.items():
            cases[name.format(options.plugins)] = (command, plain | {"PYTHONPATH": folder})
        for case in cases.values():
            seconds(*case)  # warms the cache
        times = [{name: seconds(*case) for name, case in cases.items()} for _ in range(options.rounds)]
    print("| command | seconds (median) | range |")
    print("|---|---|---|")
    for name in cases:
        values = [turn[name] for turn in times]
        print(f"| `{name}` | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")


if __name__ == "__main__":
    main()
