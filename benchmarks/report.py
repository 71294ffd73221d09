"""Tables of what was measured, and RESULTS.md. No figure in it is written by hand."""

from __future__ import annotations

import json
import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.case import Case

INTRODUCTION = """# Results

Written by `python -m benchmarks` from the files in `results/`; [README.md](README.md) says what is measured and how.
The contenders of a case ran in fresh processes that took turns. "Times" is the median, over the rounds, of a
contender's time divided by that of the first one in the same round, "range" from the lowest to the highest. "Peak" is
the largest memory of the whole process, "net" is without what importing torch takes, and "model" without what importing
any library takes. "Difference" is that of the results, relative to the largest number of the first contender's.
"""

COLUMN_NAMES = {
    "net_gib": "GiB, net",
    "task": "work",
    "loader": "examples/s, loader",
    "step": "examples/s, training step",
    "ratio": "ratio (median)",
    "lowest_ratio": "lowest",
    "megabytes_per_second": "MB/s",
}


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n")
    part.replace(path)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Three digits that count, and all before the point."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def ratios(first: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return a contender's times as multiples of the first one's, by round."""
    return [theirs / ours for ours, theirs in zip(first, other, strict=True)]


def samples_of(one: dict[str, Any]) -> int:
    """Return the samples per iteration of a contender. 0: samples do not apply."""
    return one.get("facts", {}).get("samples") or one["samples"]


def net(one: dict[str, Any], mark: str) -> float | None:
    """Peak GiB of a contender without what it had at ``mark``."""
    before = one.get("marks", {}).get(mark)
    return None if before is None or "peak_gib" not in one else one["peak_gib"] - before


def comparison_tables(case: Case, content: dict[str, Any]) -> str:
    """A table for each comparison; one for all of them where they are about growth."""
    if case.picture == "growth":
        return growth_table(content)
    tables = []
    for comparison in content["comparisons"]:
        title = f"**{comparison['name']}**\n\n" if comparison["name"] else ""
        tables.append(title + comparison_table(case, comparison, content["settings"]["device"]))
    return "\n\n".join(tables)


Column = tuple[str, Callable[[dict[str, Any]], str]]


def comparison_table(case: Case, comparison: dict[str, Any], device: str) -> str:
    """Format one comparison as a table."""
    from benchmarks.case import MATRIX_RATE

    contenders = comparison["contenders"]
    first = contenders[0]
    by_samples = any(samples_of(one) for one in contenders)

    def seconds_per_unit(one: dict[str, Any]) -> list[float]:
        return [seconds / (samples_of(one) or 1) for seconds in one["seconds"]]

    def times(one: dict[str, Any]) -> list[float]:
        comparable = first.get("seconds") and bool(samples_of(one)) == by_samples
        return ratios(seconds_per_unit(first), seconds_per_unit(one)) if comparable else []

    def rate(one: dict[str, Any]) -> float | None:
        gflop = one.get("facts", {}).get("gflop")
        return gflop / statistics.median(one["seconds"]) if gflop else None

    def difference(one: dict[str, Any]) -> str:
        if one.get("difference") is None:
            return ""
        return f"{one['difference']:.0e}" + ("" if one.get("equal", True) else ": UNEQUAL")

    columns: list[Column] = [
        ("", lambda one: one["name"]),
        ("seconds (median)", lambda one: number(statistics.median(one["seconds"]))),
        (f"times {first['name']}", lambda one: number(statistics.median(times(one))) if times(one) else ""),
        ("range", lambda one: f"{number(min(times(one)))} to {number(max(times(one)))}" if times(one) else ""),
    ]
    if by_samples:
        columns.append(
            (
                "samples/s",
                lambda one: number(1 / statistics.median(seconds_per_unit(one))) if samples_of(one) else "",
            )
        )
        columns.append(("batch", lambda one: str(one.get("facts", {}).get("batch_size", ""))))
    if any("gflop" in one.get("facts", {}) for one in contenders):
        columns.append(("GFLOP/s", lambda one: number(rate(one)) if rate(one) else ""))  # type: ignore[arg-type]
    best = next((one for one in contenders if one["name"] == MATRIX_RATE and one["seconds"]), None)
    if best is not None:
        columns.append(
            ("share of that of large matrices", lambda one: f"{rate(one) / rate(best):.0%}" if rate(one) else "")  # type: ignore[operator]
        )
    if case.memory:
        columns += memory_columns(device)
    if any(one.get("difference") is not None for one in contenders):
        columns.append(("difference", difference))
    return markdown([name for name, _ in columns], [row_of(one, columns) for one in contenders])


def memory_columns(device: str) -> list[Column]:
    """Columns of the memory that contenders use; without those that only multiply matrices."""
    from benchmarks.case import FLOOR, MATRIX_RATE

    def gib(value: float | None, one: dict[str, Any]) -> str:
        return "" if value is None or one["name"] in (FLOOR, MATRIX_RATE) else f"{value:.2f}"

    columns: list[Column] = [("GiB, peak", lambda one: gib(one["peak_gib"], one))]
    if device == "cpu":
        columns.append(("net", lambda one: gib(net(one, "torch"), one)))
        columns.append(("model", lambda one: gib(net(one, "imports"), one)))
    return columns


def row_of(contender: dict[str, Any], columns: Sequence[Column]) -> list[str]:
    """Row of a contender; if it failed, its error is in the second column."""
    if "error" in contender or not contender["seconds"]:
        error = contender.get("error", "not measured")
        return [contender["name"], f"failed: {error}", *[""] * (len(columns) - 2)]
    return [value(contender) for _, value in columns]


def growth_table(content: dict[str, Any]) -> str:
    """Seconds and memory of each contender by size, and the slopes."""
    names = [one["name"] for one in content["comparisons"][0]["contenders"]]
    head = ["positions"]
    for name in names:
        head += [f"{name}, seconds", "GiB, model"]
    rows = []
    for comparison in content["comparisons"]:
        row = [f"{comparison['size']:,}"]
        for one in comparison["contenders"]:
            failed = "error" in one or not one["seconds"]
            gib = None if failed else net(one, "imports")
            row.append("failed" if failed else number(statistics.median(one["seconds"])))
            row.append("" if gib is None else f"{gib:.3f}")
        rows.append(row)
    slopes = ["slope"]
    for name in names:
        seconds, memory = points_of(content, name, "seconds"), points_of(content, name, "memory")
        slopes.append(number(slope(seconds)) if len(seconds) > 1 else "")
        slopes.append(f"{number(kib_per_position(memory))} KiB per position" if len(memory) > 1 else "")
    errors = [
        f"{one['name']}, {comparison['name']}: {one['error']}"
        for comparison in content["comparisons"]
        for one in comparison["contenders"]
        if "error" in one
    ]
    unequal = [
        f"{one['name']}, {comparison['name']}: UNEQUAL, difference {one['difference']:.0e}"
        for comparison in content["comparisons"]
        for one in comparison["contenders"]
        if one.get("equal") is False
    ]
    return "\n".join([markdown(head, [*rows, slopes]), *(f"\n{line}" for line in errors + unequal)])


def points_of(content: dict[str, Any], name: str, what: str) -> list[tuple[float, float]]:
    """Sizes, and seconds or GiB ("memory") of a contender."""
    points = []
    for comparison in content["comparisons"]:
        one = next(each for each in comparison["contenders"] if each["name"] == name)
        if "error" in one or not one["seconds"]:
            continue
        value = statistics.median(one["seconds"]) if what == "seconds" else net(one, "imports")
        if value is not None and value > 0:
            points.append((comparison["size"], value))
    return points


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of a straight line through the logarithms of the larger half of the points (by least squares)."""
    half = points[len(points) // 2 :] if len(points) > 3 else points
    x, y = zip(*((math.log(size), math.log(value)) for size, value in half), strict=True)
    return statistics.linear_regression(x, y).slope


def kib_per_position(points: Sequence[tuple[float, float]]) -> float:
    """The slope of a straight line through sizes and GiB (by least squares)."""
    sizes, gib = zip(*points, strict=True)
    return statistics.linear_regression(sizes, gib).slope * 2**20


def rows_table(content: dict[str, Any]) -> str:
    """A table for each kind of rows: those that have the same columns."""
    kinds: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in content["rows"]:
        kinds.setdefault(tuple(row), []).append(row)
    tables = []
    for columns, rows in kinds.items():
        shown = [column for column in columns if column != "chosen"]
        head = [COLUMN_NAMES.get(column, column.replace("_", " ")) for column in shown]
        tables.append(markdown(head, [[cell(row, column) for column in shown] for row in rows]))
    return "\n\n".join([*tables, *(f"failed: {error}" for error in content["errors"])])


def cell(row: dict[str, Any], column: str) -> str:
    """A value of a row, bold in the row of what was chosen."""
    value = row[column]
    if isinstance(value, list) and value and isinstance(value[0], float):
        value = statistics.median(value)
    if isinstance(value, list):
        text = "; ".join(f"`{each}`" for each in value)
    else:
        text = number(value) if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    return f"**{text}**" if row.get("chosen") and column in ("path", "absorbed", "seconds") else text


def case_table(case: Case, content: dict[str, Any]) -> str:
    """All tables of a case."""
    return comparison_tables(case, content) if "comparisons" in content else rows_table(content)


def unequal(content: dict[str, Any]) -> list[str]:
    """The contenders whose results differ from the first one's."""
    return [
        f"{content['case']}{', ' + comparison['name'] if comparison['name'] else ''}: {one['name']}"
        for comparison in content.get("comparisons", ())
        for one in comparison["contenders"]
        if one.get("equal") is False
    ]


def settings_line(content: dict[str, Any], machine: str) -> str:
    """Describe the settings of a measurement."""
    settings = dict(content["settings"])
    done = [len(one["seconds"]) for comparison in content.get("comparisons", ()) for one in comparison["contenders"]]
    settings["rounds"] = max(done, default=settings["rounds"])
    clock = "wall clock" if settings["clock"] == "wall" else "CPU time"
    parts = [f"{settings[what]} {what if settings[what] != 1 else what[:-1]}" for what in ("rounds", "threads")] + [
        clock
    ]
    parts += ["tiny sizes: these are no results"] if settings["quick"] else []
    return f"    {content['command']}\n\n{', '.join(parts)}; {content['when']}{machine}."


def machines_table(contents: Sequence[dict[str, Any]]) -> tuple[str, Callable[[dict[str, Any]], str]]:
    """Machines and versions, and a function that returns the one that a case was measured on."""
    kinds: list[dict[str, Any]] = []
    for content in contents:
        kind = content["machine"] | content["versions"]
        if kind not in kinds:
            kinds.append(kind)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = list(dict.fromkeys(name for kind in kinds for name in kind))
    head = ["", *(letters[:26][i % 26] for i in range(len(kinds)))] if len(kinds) > 1 else ["", ""]
    rows = [
        [name.replace("_gib", ", GiB").replace("_", " "), *(str(kind.get(name, "")) for kind in kinds)]
        for name in names
    ]

    def which(content: dict[str, Any]) -> str:
        kind = content["machine"] | content["versions"]
        return f"; machine {letters[kinds.index(kind) % 26]}" if len(kinds) > 1 else ""

    return markdown(head, rows), which


def read_results(folder: Path, cases: dict[str, Case]) -> list[dict[str, Any]]:
    """Read the results in ``folder``, in the order of the cases."""
    return [json.loads(path.read_text()) for name in cases if (path := folder / f"{name}.json").is_file()]


def write_results(folder: Path, cases: dict[str, Case]) -> Path:
    """Writes ``RESULTS.md`` beside ``folder`` of all that was measured, in whatever run.

    Also what other programs left there: a file ``NAME.md``, with a picture ``NAME.png``.

    Returns:
        Where it is.
    """
    contents = read_results(folder, cases)
    parts = [INTRODUCTION]
    if contents:
        table, which = machines_table(contents)
        parts.append(table)
    for content in contents:
        case = cases[content["case"]]
        parts += [f"## {case.title}", textwrap.fill(case.text, 120), settings_line(content, which(content))]
        parts.append(case_table(case, content))
        if (folder / f"{case.name}.png").is_file():
            parts.append(f"![{case.title}]({folder.name}/{case.name}.png)")
    for path in sorted(folder.glob("*.md")):
        if path.stem in cases:
            continue
        parts += [f"## {path.stem.replace('-', ' ').capitalize()}", path.read_text().strip()]
        if path.with_suffix(".png").is_file():
            parts.append(f"![{path.stem}]({folder.name}/{path.stem}.png)")
    target = folder.parent / "RESULTS.md"
    target.write_text("\n\n".join(part.strip("\n") for part in parts) + "\n")
    return target
