"""Tables of the runs on own data, and the section of the recipes' results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.own_data.sets import SETS, DataSet
from benchmarks.report import markdown

CLOSE = {"accuracy": 2.0, "r2": 0.03}
"""Difference to the best baseline that counts as close: points of accuracy, or R2."""

DEFAULT_SEEDS = [0, 1, 2]
"""Seeds of the runs."""

MAX_CURVE_POINTS = 10
"""Most points of a printed curve; all are in the JSON file."""

BEGIN, END = "<!-- own-data: begin -->", "<!-- own-data: end -->"
"""Lines around the section of recipes/RESULTS.md that the command writes."""

HEAD = (
    "set (train / test)",
    "runs: accuracy or R2",
    "CPU s, fit",
    "CPU s, test",
    "parameters",
    "epochs",
    "baselines (CPU s)",
    "difference to the best",
    "close",
)

TEXT = """\
Runs with the defaults of `perceiver fit` on public labelled data as a user has it (`.jsonl`, class folders of images,
`.csv`), on one thread: mean over the seeds, and range, of accuracy in percent or R2. CPU seconds are those of the whole
command, with imports and data preparation; those of baselines are without imports. Baselines are fitted on the same
training rows (a part of which the runs hold out for validation) and tested on the same rows; "close" is within 2 points
of accuracy, or 0.03 of R2, of the best one. A hash splits the rows of a set into training rows, rows that defaults are
chosen on, and the rows reported here, on which nothing is chosen. "Generated" tables are scikit-learn's
`make_friedman1` and `make_classification`."""

RECIPE_TEXT = """\
The same with a recipe. Recipes, too, are chosen on the other rows."""

Run = dict[str, Any]


def is_recorded(flags: Sequence[str]) -> bool:
    """Return whether flags are those of results that the repository keeps: the defaults, or a recipe."""
    return all(flag.startswith("--config=recipes/") for flag in flags)


def is_shown(run: Run) -> bool:
    """Return whether a run is part of the section of the recipes' results."""
    return run["part"] == "report" and is_recorded(run["flags"])


def scaled(metrics: dict[str, float], data_set: DataSet) -> float:
    """Return accuracy in percent, or R2."""
    return metrics[data_set.metric] * (100 if data_set.metric == "accuracy" else 1)


def spread(values: Sequence[float], digits: int) -> str:
    """Format mean and range."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def baseline_means(data_set: DataSet, baselines: Sequence[Run]) -> dict[str, tuple[float, float]]:
    """Return mean metric and mean CPU seconds of each baseline, by name."""
    by_name: dict[str, list[Run]] = {}
    for baseline in baselines:
        name = baseline["name"] + (f" ({baseline['features']})" if "features" in baseline else "")
        by_name.setdefault(name, []).append(baseline)
    return {
        name: (
            statistics.mean(scaled(each["metrics"], data_set) for each in those),
            statistics.mean(each["cpu_seconds"] for each in those),
        )
        for name, those in by_name.items()
    }


def difference(data_set: DataSet, runs: Sequence[Run], baselines: Sequence[Run]) -> float | None:
    """Return the mean of the runs minus the best baseline, or None without baselines."""
    means = baseline_means(data_set, baselines)
    if not means:
        return None
    mean = statistics.mean(scaled(run["metrics"], data_set) for run in runs)
    return (
        round(mean - max(best for best, _ in means.values()), 4) + 0.0
    )  # metrics of runs are 32-bit; no negative zero


def table_row(data_set: DataSet, runs: Sequence[Run], baselines: Sequence[Run]) -> list[str]:
    """Format the row of a set."""
    digits = 1 if data_set.metric == "accuracy" else 3
    means = baseline_means(data_set, baselines)
    gap = difference(data_set, runs, baselines)
    is_close = gap is not None and gap >= -CLOSE[data_set.metric]

    def mean(name: str) -> str:
        return f"{statistics.mean(run[name] for run in runs):,.0f}"

    return [
        f"{data_set.title} ({runs[0]['train_rows']:,} / {runs[0]['test_rows']:,})",
        spread([scaled(run["metrics"], data_set) for run in runs], digits),
        mean("fit_cpu_seconds"),
        mean("test_cpu_seconds"),
        mean("parameters"),
        mean("epochs"),
        "; ".join(f"{name} {value:.{digits}f} ({seconds:.0f})" for name, (value, seconds) in means.items()),
        "" if gap is None else f"{gap:+.{digits}f}",
        "" if gap is None else "yes" if is_close else "**no**",
    ]


def curve_line(data_set: DataSet, run: Run) -> str:
    """Format the curve of a run: validation metric by CPU seconds."""
    points = run["curve"]
    step = max(1, -(-len(points) // MAX_CURVE_POINTS))
    shown = points[::-1][::step][::-1]  # the last point is always shown
    digits = 1 if data_set.metric == "accuracy" else 3
    values = ", ".join(
        f"{scaled({data_set.metric: value}, data_set):.{digits}f} ({time:.0f} s)" for time, value in shown
    )
    return f"- {data_set.title}, seed {run['seed']}: {values}"


def table(content: dict[str, Any], part: str, flags: Sequence[str]) -> str:
    """Format the table of a part and of runs with certain flags, and the curves of the sets that are not close.

    Args:
        content: the results.
        part: one of :data:`~benchmarks.own_data.sets.PARTS`.
        flags: further flags of the runs.
    """
    rows, curves = [], []
    for data_set in SETS.values():
        runs = [run for run in content["runs"] if matches(run, data_set.name, part) and run["flags"] == list(flags)]
        if not runs:
            continue
        baselines = [each for each in content["baselines"] if matches(each, data_set.name, part)]
        rows.append(table_row(data_set, runs, baselines))
        if rows[-1][-1] == "**no**":
            curves += [curve_line(data_set, run) for run in runs]
    parts = [markdown(HEAD, rows)]
    if curves:
        parts += ["Validation accuracy or R2 by CPU seconds where a run is not close:", "\n".join(curves)]
    return "\n\n".join(parts)


def matches(entry: Run, name: str, part: str) -> bool:
    """Return whether an entry is of a set and a part."""
    return entry["set"] == name and entry["part"] == part


def all_tables(content: dict[str, Any]) -> str:
    """Format a table for each part and flags."""
    kinds = list(dict.fromkeys((run["part"], tuple(run["flags"])) for run in content["runs"]))
    parts = []
    for part, flags in sorted(kinds, key=lambda kind: (kind[0] != "report", kind[1])):
        title = f"Part `{part}`, {'`' + ' '.join(flags) + '`' if flags else 'defaults'}"
        parts += [f"**{title}**", table(content, part, flags)]
    return "\n\n".join(parts)


def section(content: dict[str, Any]) -> str:
    """Format the section of the recipes' results: the reported part with defaults and with recipes."""
    machine, versions = content["machine"], content["versions"]
    shown = [run for run in content["runs"] if is_shown(run)]
    codes = {run["code"] for run in shown}
    names = ", ".join(f"{name} {version}" for name, version in versions.items())
    parts = [BEGIN, "## Own data"]
    for flags in sorted({tuple(run["flags"]) for run in shown}):  # the defaults, (), are first
        measured = [run for run in shown if run["flags"] == list(flags)]
        commands = "\n".join(f"    {command}" for command in commands_of(measured))
        parts += [commands, RECIPE_TEXT if flags else TEXT, table(content, "report", flags)]
    parts.append(
        f"{machine.get('processor', '')}; {names}."
        + (f" Runs of {len(codes)} versions of the code." if len(codes) > 1 else "")
    )
    return "\n\n".join([*parts, END])


def commands_of(runs: Sequence[Run]) -> list[str]:
    """Return the commands that measure runs of one part with the same flags: one for all sets with the same seeds."""
    by_seeds: dict[frozenset[int], list[Run]] = {}
    for name in SETS:
        if measured := [run for run in runs if run["set"] == name]:
            by_seeds.setdefault(frozenset(run["seed"] for run in measured), []).extend(measured)
    return [command_of(those) for those in by_seeds.values()]


def command_of(runs: Sequence[Run]) -> str:
    """Return the command that measures runs of one part with the same flags and seeds."""
    names, seeds = {run["set"] for run in runs}, sorted({run["seed"] for run in runs})
    words = ["--part", runs[0]["part"], "--set", *(name for name in SETS if name in names)]
    words += [] if seeds == DEFAULT_SEEDS else ["--seeds", *map(str, seeds)]
    return " ".join(["python -m benchmarks own-data", *words, *(["--", *runs[0]["flags"]] if runs[0]["flags"] else [])])


def update_section(path: Path, content: dict[str, Any]) -> None:
    """Replace the section between the markers of a file, or append it."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    after = rest.partition(END)[2] if begin else "\n"
    path.write_text(f"{before.rstrip()}\n\n{section(content)}{after.rstrip()}\n".lstrip("\n"), encoding="utf-8")
