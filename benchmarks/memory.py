"""How much memory this process has and had, and how much of it was there before any model."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
GIB = 2**30

_marks: dict[str, float] = {}


def _status(field: str) -> float | None:
    if not STATUS.is_file():
        return None
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / GIB


def resident() -> float | None:
    """GiB of memory that the process has now. None: this system does not tell."""
    return _status("VmRSS")


def peak() -> float:
    """GiB of memory that the process had at its peak."""
    # Not ru_maxrss where there is another: it begins with what the parent had when it started the process.
    high = _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB if high is None else high


def forget_peak() -> None:
    """Lets :func:`peak` begin anew, where the system can do that."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def mark(name: str) -> None:
    """Notes how much memory the process has now: after importing torch ("torch"), or all libraries ("imports")."""
    if (now := resident()) is not None:
        _marks[name] = now


def marks() -> dict[str, float]:
    """What :func:`mark` noted."""
    return dict(_marks)
