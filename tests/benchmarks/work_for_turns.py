"""Work that the processes of ``test_benchmarks.py`` do. No tests here."""

from __future__ import annotations

import os
import sys

import torch

from benchmarks.case import Job, Options


def squares(options: Options, number: int, wrong: float = 0.0) -> Job:
    """The squares of the first numbers, each off by ``wrong`` of the largest."""
    numbers = torch.arange(float(number))
    return Job(lambda: numbers**2 + wrong * (number - 1) ** 2, {"gflop": number / 1e9})


def unable(options: Options) -> Job:
    raise RuntimeError("there is no\nsuch peer")


def some_rows(options: Options) -> list[dict[str, object]]:
    return [{"model": "a", "seconds": [1.0, 3.0, 2.0], "chosen": True}]


def imported(options: Options) -> dict[str, object]:
    """Imported modules and variables of the process."""
    modules = {name: name in sys.modules for name in ("torch", "pytorch_lightning")}
    return {**modules, "threads": os.environ["OMP_NUM_THREADS"], "variable": os.environ["SOME_VARIABLE"]}
