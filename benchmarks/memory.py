"""Memory of this process: now, at its peak, and before any model."""

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
    """Return the resident memory of the process in GiB; None where the system does not report it."""
    return _status("VmRSS")


def peak() -> float:
    """Return the peak memory of the process in GiB."""
    # Not ru_maxrss where there is another: it begins with what the parent had when it started the process.
    high = _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB if high is None else high


def forget_peak() -> None:
    """Reset :func:`peak`, where the system supports it."""
    clear = Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


def mark(name: str) -> None:
    """Record the current memory under a name: after importing torch ("torch") or all libraries ("imports")."""
    if (now := resident()) is not None:
        _marks[name] = now


def marks() -> dict[str, float]:
    """Memory that :func:`mark` recorded, by name."""
    return dict(_marks)
