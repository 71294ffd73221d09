"""Times the whole process of commands that import no torch, with a warm cache."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
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


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    for command in COMMANDS.values():
        seconds(command)  # warms the cache
    times = [{name: seconds(command) for name, command in COMMANDS.items()} for _ in range(rounds)]
    print("| command | seconds (median) | range |")
    print("|---|---|---|")
    for name in COMMANDS:
        values = [turn[name] for turn in times]
        print(f"| `{name}` | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")


if __name__ == "__main__":
    main()
