"""Description of the machine and the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from benchmarks.case import Options
from benchmarks.memory import GIB

PACKAGES = ("torch", "transformers", "perceiver-io", "perceiver-zoo", "pytorch-lightning", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of what is installed of the packages that matter."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe(options: Options) -> dict[str, Any]:
    """The machine, with what torch finds that it can do. Imports torch: called in a process of its own."""
    import torch

    description = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB),
        "system": system(),
    }
    if options.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        description["gpu"] = properties.name
        description["gpu_memory_gib"] = round(properties.total_memory / GIB)
        description["cuda"] = torch.version.cuda
    return description


def processor() -> str:
    """The name of the processor."""
    cpu_info = Path("/proc/cpuinfo")
    fields: dict[str, str] = {}
    if cpu_info.is_file():
        for line in cpu_info.read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    name = fields.get("model name") or platform.processor() or platform.machine()
    if {"cpu family", "model"} <= fields.keys():
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def system() -> str:
    """The operating system and its kernel."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, {platform.system()} {platform.release()}"
