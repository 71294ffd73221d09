"""Measured runs: ``perceiver fit`` and ``perceiver test`` in processes of their own, on one thread."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.own_data.sets import DataSet

REPOSITORY = Path(__file__).parents[2]
PACKAGES = ("perceiver_core", "perceiver_plugins", "perceiver_registry", "perceiver_cli")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
}
LOGGER = "benchmarks.own_data.logger.TimedCSVLogger"

RECORDED = {
    "data": ("tokenizer", "max_seq_len", "batch_size", "val_fraction"),
    "model": ("num_latents", "num_latent_channels"),
    "encoder": ("adapter", "num_input_channels", "num_self_attention_layers_per_block", "vocab_size", "dropout"),
    "optimizer": ("name", "lr", "weight_decay"),
    "task": ("label_smoothing", "ema_decay"),
    "trainer": ("max_epochs", "max_steps"),
}
"""Options of a run that its results list, by section."""


INTERRUPTED = (130, 143, -2, -15)
"""Exit codes of interrupted processes: those of ``perceiver``, and of signals."""


class FailedError(Exception):
    """A measured process failed; the message is the end of its output."""


def code_version() -> str:
    """Return a hash of the source of the measured packages."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for path in sorted(Path(spec.origin).parent.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def call(arguments: Sequence[str], folder: Path) -> float:
    """Run a Python module in a process of its own and return its CPU seconds, with those of its child processes.

    Args:
        arguments: name of the module, and its arguments.
        folder: working directory, also of the cache and of the output (``output.txt``).

    Raises:
        FailedError: if the exit code is not 0.
        KeyboardInterrupt: if the process was interrupted, as by Ctrl-C.
    """
    path = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
    environment = os.environ | ONE_THREAD | {"PYTHONPATH": path, "PERCEIVER_CACHE": str(folder / "cache")}
    output = folder / "output.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            _, status, usage = os.wait4(process.pid, 0)  # the usage of this process alone, whatever else runs
        except BaseException:
            process.terminate()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode in INTERRUPTED:
        raise KeyboardInterrupt
    if process.returncode:
        raise FailedError(" | ".join(output.read_text(errors="replace").strip().splitlines()[-3:]))
    return usage.ru_utime + usage.ru_stime


def measure(
    data_set: DataSet, files: tuple[Path, Path], seed: int, flags: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Train and test a model.

    Args:
        data_set: the data set.
        files: files to train and to test on.
        seed: seed of the run.
        flags: further flags of ``perceiver fit``; relative paths of ``--config`` are those of the repository.
        folder: an empty folder, for all files of the run.

    Returns:
        ``metrics`` on the test file (plain names, such as "accuracy"), ``fit_cpu_seconds``, ``test_cpu_seconds``,
        ``parameters``, ``epochs``, ``steps``, ``curve`` (pairs of CPU seconds and validation metric), ``options`` and
        ``notes`` (lines of the output about the data and the defaults).

    Raises:
        FailedError: if a command failed.
    """
    train_flag, test_flag = data_set.file_flags
    logs = [f"--trainer.logger={LOGGER}", "--trainer.logger.save_dir=logs", "--trainer.logger.name=run"]
    words = [*data_set.flags, f"{train_flag}={files[0]}", f"--seed_everything={seed}", *logs, "--allow=benchmarks"]
    fit_seconds = call(["perceiver_cli", "fit", *words, *map(resolve_config, flags)], folder)
    run = folder / "logs" / "run" / "version_0"
    result = summary(run, data_set.metric) | {"fit_cpu_seconds": fit_seconds, "notes": notes(folder / "output.txt")}
    tested = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=tested"]
    best = f"--ckpt_path={run / 'checkpoints' / 'best.ckpt'}"
    result["test_cpu_seconds"] = call(["perceiver_cli", "test", best, f"{test_flag}={files[1]}", *tested], folder)
    (metrics,) = read_csv(folder / "tested" / "lightning_logs" / "version_0" / "metrics.csv")
    result["metrics"] = {
        name.removeprefix("test_"): float(value) for name, value in metrics.items() if name.startswith("test_")
    }
    return result


def resolve_config(flag: str) -> str:
    """Resolve the path of ``--config`` relative to the repository; return other flags as they are."""
    name, _, value = flag.partition("=")
    return f"{name}={REPOSITORY / value}" if name == "--config" else flag


def summary(run: Path, metric: str) -> dict[str, Any]:
    """Return parameters, epochs, steps, curve and options of a finished run.

    Args:
        run: folder of the run.
        metric: name of the metric of the curve.
    """
    import torch
    import yaml

    last = torch.load(run / "checkpoints" / "last.ckpt", map_location="cpu", weights_only=True)
    rows = read_csv(run / "metrics.csv")
    config = yaml.safe_load((run / "config.yaml").read_text())
    sections = config | {"encoder": config["model"]["encoder"]}
    return {
        "parameters": sum(value.numel() for name, value in last["state_dict"].items() if name.startswith("model.")),
        "epochs": last["epoch"] + 1,
        "steps": last["global_step"],
        "curve": [
            (round(float(row["cpu_seconds"]), 2), round(float(row[f"val_{metric}"]), 5))
            for row in rows
            if row.get(f"val_{metric}")
        ],
        "options": {
            f"{section}.{name}": sections[section][name]
            for section, names in RECORDED.items()
            for name in names
            if (sections.get(section) or {}).get(name) is not None
        },
    }


def notes(output: Path) -> list[str]:
    """Return the lines of the output before the model summary."""
    lines = [line.strip() for line in output.read_text(errors="replace").splitlines()]
    start = next((number for number, line in enumerate(lines) if line.startswith("Name ")), 0)
    return [line for line in lines[:start] if line]


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
