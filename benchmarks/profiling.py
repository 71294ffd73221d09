"""Where the time goes, by torch's profiler: ``python -m benchmarks profile CASE``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.case import Options
from benchmarks.turns import resolve


class Event(NamedTuple):
    """An operator (on a CPU) or a kernel (on a GPU), all of its calls together."""

    name: str
    calls: int
    seconds: float


def profile(work: Callable[[], Any], options: Options) -> list[Event]:
    """The operators or kernels that ran and the time in them alone, longest first."""
    import torch
    from torch.profiler import ProfilerActivity

    cuda = options.device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        work()
        if cuda:
            torch.cuda.synchronize()
    averages = profiler.key_averages()
    if cuda:  # operators as well as the kernels that they start have times of the GPU
        averages = [event for event in averages if event.device_type == torch.autograd.DeviceType.CUDA]
    times = (event.self_device_time_total if cuda else event.self_cpu_time_total for event in averages)
    events = [Event(event.key, event.count, time / 1e6) for event, time in zip(averages, times, strict=True)]
    return sorted((event for event in events if event.seconds > 0), key=lambda event: -event.seconds)


def table(events: list[Event], limit: int = 25) -> str:
    """The share of each in the whole."""
    total = sum(event.seconds for event in events) or 1.0
    lines = ["| operator | calls | seconds | share |", "|---|---|---|---|"]
    for event in events[:limit]:
        lines.append(f"| {event.name[:100]} | {event.calls} | {event.seconds:.4f} | {event.seconds / total:.1%} |")
    rest = sum(event.seconds for event in events[limit:])
    lines += [f"| {len(events) - limit} others | | {rest:.4f} | {rest / total:.1%} |"] if events[limit:] else []
    return "\n".join([*lines, f"| all | | {total:.4f} | |"])


def of_work(options: Options, work: str, arguments: dict[str, Any]) -> str:
    """The table of a contender's work, done once before."""
    run = resolve(work)(options, **arguments).run
    run()
    return table(profile(run, options))
