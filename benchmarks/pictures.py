"""Figures of the results."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.case import FLOOR, MATRIX_RATE, Case
from benchmarks.report import kib_per_position, net, number, points_of, samples_of, slope

COLOURS = ("tab:blue", "tab:orange", "tab:gray", "tab:green", "tab:red", "tab:purple")


def draw(case: Case, content: dict[str, Any], path: Path) -> bool:
    """Draws the picture of a case, if it has one. Returns whether it has."""
    if case.picture is None or "comparisons" not in content:
        return False
    import matplotlib

    matplotlib.use("Agg")
    figure = growth(content) if case.picture == "growth" else bars(case, content)
    if figure is None:
        return False
    figure.savefig(path, dpi=120)
    return True


def bars(case: Case, content: dict[str, Any]) -> Any:
    """Seconds of each contender, from the fastest round to the slowest, and its memory beside."""
    from matplotlib import pyplot

    shown = [
        (comparison["name"], one)
        for comparison in content["comparisons"]
        for one in comparison["contenders"]
        if one.get("seconds") and one["name"] != MATRIX_RATE
    ]
    if not shown:
        return None
    with_memory = case.memory
    figure, panels = pyplot.subplots(
        1, 1 + with_memory, figsize=(11, 1.2 + 0.4 * len(shown)), sharey=True, squeeze=False, layout="constrained"
    )
    labels = [f"{title}: {one['name']}" if title else one["name"] for title, one in shown]
    labels = [label.replace("`", "") for label in labels]
    rows = range(len(shown))
    seconds = [[value / (samples_of(one) or 1) for value in one["seconds"]] for _, one in shown]
    medians = [statistics.median(values) for values in seconds]
    spreads = [
        [median - min(values) for median, values in zip(medians, seconds, strict=True)],
        [max(values) - median for median, values in zip(medians, seconds, strict=True)],
    ]
    axes = panels[0][0]
    by_sample = any(samples_of(one) for _, one in shown)
    bars_of_time = axes.barh(rows, medians, xerr=spreads, color=COLOURS[0], error_kw={"lw": 1})
    axes.bar_label(bars_of_time, [number(median) for median in medians], padding=4)
    axes.set(xlabel="seconds a sample" if by_sample else "seconds")
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    if with_memory:
        on_cpu = content["settings"]["device"] == "cpu"
        memory = [
            0.0 if one["name"] == FLOOR else (net(one, "torch") if on_cpu else one["peak_gib"]) for _, one in shown
        ]
        bars_of_memory = panels[0][1].barh(rows, [value or 0.0 for value in memory], color=COLOURS[1])
        panels[0][1].bar_label(bars_of_memory, [f"{value:.2f}" if value else "" for value in memory], padding=4)
        panels[0][1].set(xlabel="GiB at the peak, without importing torch" if on_cpu else "GiB at the peak")
        panels[0][1].margins(x=0.15)
    return figure


def growth(content: dict[str, Any]) -> Any:
    """Seconds and memory over the number of positions, both on logarithmic scales."""
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = [one["name"] for one in content["comparisons"][0]["contenders"]]
    for axes, what, label in zip(panels, ("seconds", "memory"), ("seconds", "GiB, without imports"), strict=True):
        for name, colour in zip(names, COLOURS, strict=False):
            points = points_of(content, name, what)
            if len(points) < 2:
                continue
            sizes, values = zip(*points, strict=True)
            fitted = (
                f"slope {slope(points):.2f}"
                if what == "seconds"
                else f"{number(kib_per_position(points))} KiB per position"
            )
            axes.plot(sizes, values, "o-", color=colour, label=f"{name}, {fitted}")
        axes.set(xscale="log", yscale="log", xlabel="positions", ylabel=label)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    return figure
