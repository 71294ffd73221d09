"""``python -m benchmarks own-data``: measures runs on public data sets, and writes JSON, tables and a section."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks import machine
from benchmarks.case import Options
from benchmarks.own_data import report, runs, sets
from benchmarks.own_data.sets import SETS, DataSet
from benchmarks.report import write_json

VARIABLE = "PERCEIVER_TEST_DATA"
HERE = Path(__file__).parents[1]
RECIPES = HERE.parent / "recipes" / "RESULTS.md"
QUICK_FLAGS = ["--trainer.max_epochs=1"]
EQUAL_BUDGET = 0.1
"""Relative difference of the network's CPU seconds to those of the run up to which they count as equal."""

Content = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Run the command.

    Returns:
        1 if a run failed, else 0.
    """
    own, separator, flags = _partition(arguments)
    chosen = parse(own)
    chosen.flags = [*(QUICK_FLAGS if chosen.quick else []), *flags]
    path = results_folder(chosen) / "own-data.json"
    results = Results(path, shlex.join(["python", "-m", "benchmarks", "own-data", *own, *separator, *flags]))
    failed = [] if chosen.report_only else measure_all(chosen, results)
    finish(chosen, results, write_section=path.parent == HERE / "results")
    for line in failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if failed else 0


def _partition(arguments: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return the arguments before "--", the "--" and those after it."""
    index = list(arguments).index("--") if "--" in arguments else len(arguments)
    return list(arguments[:index]), list(arguments[index : index + 1]), list(arguments[index + 1 :])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line before "--"."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks own-data",
        description="Measures perceiver fit on public labelled data beside baselines. Flags after -- are passed to it.",
    )
    data = os.environ.get(VARIABLE)
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(data) if data else None,
        help=f"folder of the data sets (default: ${VARIABLE})",
    )
    parser.add_argument("--set", dest="sets", nargs="+", action="extend", choices=SETS, metavar="NAME")
    parser.add_argument(
        "--part", choices=sets.PARTS, default="tune", help="rows to test on: to choose on, to report, or to check"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=report.DEFAULT_SEEDS)
    parser.add_argument("--jobs", type=int, default=1, help="data sets measured at the same time")
    parser.add_argument("--again", action="store_true", help="measure what is already in the results as well")
    parser.add_argument("--no-baselines", action="store_true", help="measure no baselines that are not in the results")
    parser.add_argument("--report-only", action="store_true", help="measure nothing; write the tables again")
    parser.add_argument("--quick", action="store_true", help="few rows and one epoch, to see that it works")
    parser.add_argument("--results", type=Path, help="folder of the results")
    chosen = parser.parse_args(arguments)
    chosen.sets = [name for name in SETS if not chosen.sets or name in chosen.sets]
    return chosen


def results_folder(chosen: argparse.Namespace) -> Path:
    """Return the folder of the results: only reported runs with defaults or a recipe are kept in the repository."""
    if chosen.results is not None:
        return chosen.results
    if chosen.quick:
        return Path(tempfile.mkdtemp(prefix="own-data-"))
    if chosen.part == "report" and report.is_recorded(chosen.flags):
        return HERE / "results"
    return Path(tempfile.gettempdir()) / "own-data-benchmark"


class Results:
    """Results in a JSON file, which several processes and threads may write.

    Args:
        path: the file.
        command: the command line that measures.
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        self.command = command
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def read(self) -> Content:
        """Read the results; without a file, return empty ones."""
        empty = {"command": self.command, "machine": {}, "versions": {}, "runs": [], "baselines": []}
        return json.loads(self.path.read_text()) if self.path.exists() else empty

    def find(self, kind: str, key: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the entries of "runs" or "baselines" that have all values of a key."""
        return [entry for entry in self.read()[kind] if key.items() <= entry.items()]

    def add(self, kind: str, key: dict[str, Any], entry: dict[str, Any]) -> None:
        """Add an entry in exchange for one with the same key."""
        with self._changing() as content:
            kept = [each for each in content[kind] if not key.items() <= each.items()]
            content[kind] = sorted(
                [*kept, key | entry], key=lambda each: (each["set"], each["part"], str(each.get("flags")), each["seed"])
            )

    def describe(self, about: dict[str, Any]) -> None:
        """Record the machine and the versions."""
        with self._changing() as content:
            content |= about

    @contextmanager
    def _changing(self) -> Iterator[Content]:
        with FileLock(self.path.with_suffix(".lock")):
            content = self.read()
            yield content
            write_json(self.path, content)


def measure_all(chosen: argparse.Namespace, results: Results) -> list[str]:
    """Measure the chosen sets, and return a line for each run that failed."""
    available = []
    for name in chosen.sets:
        if missing := SETS[name].missing(chosen.data):
            print(f"{name}: {missing} not found in {chosen.data or f'--data or ${VARIABLE}'} (skipped)", flush=True)
        else:
            available.append(SETS[name])
    results.describe(
        {
            "command": results.command,
            "when": datetime.date.today().isoformat(),
            "machine": machine.describe(Options()),
            "versions": machine.versions(),
        }
    )
    code = runs.code_version()
    with ThreadPoolExecutor(chosen.jobs) as pool:
        measured = pool.map(lambda each: measure_set(each, chosen, results, code), available)
        return [line for lines in measured for line in lines]


def measure_set(data_set: DataSet, chosen: argparse.Namespace, results: Results, code: str) -> list[str]:
    """Measure the runs and the baselines of a set, and return a line for each that failed."""
    failed = []
    with tempfile.TemporaryDirectory(prefix=f"own-data-{data_set.name}-") as name:
        folder = Path(name)
        loaded = data_set.load(chosen.data)
        parts = sets.split(loaded, chosen.quick, check=chosen.part == "check")
        rows = {"train": parts["train"], "test": parts[chosen.part]}
        files = [sets.write(data_set, rows[part], loaded.columns, folder, part) for part in rows]
        facts = {"code": code, **{f"{part}_rows": len(rows[part]) for part in rows}}
        for seed in chosen.seeds:
            key = {"set": data_set.name, "part": chosen.part, "flags": chosen.flags, "seed": seed}
            if not chosen.again and results.find("runs", key | facts):
                continue
            try:
                work = folder / f"seed{seed}"
                work.mkdir()
                measured = runs.measure(data_set, (files[0], files[1]), seed, chosen.flags, work)
            except runs.FailedError as error:
                failed.append(f"{data_set.name}, seed {seed}: {error}")
                continue
            results.add("runs", key, facts | measured)
            print(line_of(data_set, key | measured), flush=True)
        try:
            measure_baselines(data_set, files, chosen, results, folder)
        except runs.FailedError as error:
            failed.append(f"{data_set.name}, baselines: {error}")
    return failed


def line_of(data_set: DataSet, run: dict[str, Any]) -> str:
    """Format a line of progress."""
    value = report.scaled(run["metrics"], data_set)
    seconds = f"{run['fit_cpu_seconds']:.0f} + {run['test_cpu_seconds']:.0f} CPU s"
    return f"{data_set.name}, seed {run['seed']}: {value:.{1 if data_set.metric == 'accuracy' else 3}f}, {seconds}"


def measure_baselines(
    data_set: DataSet, files: Sequence[Path], chosen: argparse.Namespace, results: Results, folder: Path
) -> None:
    """Measure the baselines that the results lack.

    Raises:
        FailedError: if a baseline failed.
    """
    if chosen.no_baselines:
        return
    kind = data_set.kind
    if kind == "table":
        kind = "numbers" if data_set.metric == "r2" else "classes"
    key = {"set": data_set.name, "part": chosen.part}
    if chosen.again or not results.find("baselines", key):
        add_baselines(results, key | {"seed": 0}, [kind, *map(str, files)], folder)
    if data_set.name != "cifar10":
        return
    for seed in chosen.seeds:
        for run in results.find("runs", key | {"flags": chosen.flags, "seed": seed}):
            seconds = run["fit_cpu_seconds"]
            known = results.find("baselines", key | {"seed": seed})
            budgets = [each["budget"] for each in known if "budget" in each]
            if chosen.again or not any(abs(budget / seconds - 1) < EQUAL_BUDGET for budget in budgets):
                flags = [f"--seconds={seconds}", f"--seed={seed}"]
                add_baselines(results, key | {"seed": seed}, [kind, *map(str, files), *flags], folder)


def add_baselines(results: Results, key: dict[str, Any], arguments: Sequence[str], folder: Path) -> None:
    """Measure baselines in a process of their own and add them to the results."""
    output = folder / "baselines.json"
    kind, train, test, *flags = arguments
    runs.call(["benchmarks.own_data.baselines", kind, train, test, str(output), *flags], folder)
    for baseline in json.loads(output.read_text()):
        results.add("baselines", key | {"name": baseline["name"]}, baseline)
        print(
            f"{key['set']}, {baseline['name']}: {baseline['metrics']}, {baseline['cpu_seconds']:.0f} CPU s", flush=True
        )


def finish(chosen: argparse.Namespace, results: Results, write_section: bool) -> None:
    """Write the tables, and print the one of this part and these flags."""
    content = results.read()
    path = results.path.with_suffix(".md")
    path.write_text(f"{report.all_tables(content)}\n")
    print(f"\n{report.table(content, chosen.part, chosen.flags)}\n\n{path}")
    if write_section and any(map(report.is_shown, content["runs"])):
        report.update_section(RECIPES, content)
        print(RECIPES)
