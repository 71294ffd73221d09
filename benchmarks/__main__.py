"""``python -m benchmarks``: measures cases, and writes tables, pictures and RESULTS.md."""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine, report, turns
from benchmarks.case import OURS, Case, Comparison, Contender, Options, plain
from benchmarks.cases import all_cases, chosen_cases

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        1 if a contender's results differ from the first one's, else 0.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["profile"]:
        return profile(parse(arguments[1:], "python -m benchmarks profile"))
    if arguments[:1] == ["own-data"]:
        from benchmarks.own_data import command as own_data  # deferred: only this command needs it

        return own_data.main(arguments[1:])
    chosen = parse(arguments, "python -m benchmarks")
    if chosen.list:
        for case in all_cases().values():
            print(f"{case.name:28} {case.title}{' (on a GPU)' if case.device == 'cuda' else ''}")
        print(f"{'own-data':28} Training on own data beside linear baselines (a command: own-data --help)")
        return 0
    folder = results_folder(chosen)
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    wrong = [] if chosen.report else run(chosen, folder, command)
    if chosen.report:
        for content in report.read_results(folder, all_cases()):
            finish(all_cases()[content["case"]], content, folder)
    print(f"\n{report.write_results(folder, all_cases())}")
    for each in wrong:
        print(f"UNEQUAL RESULTS: {each}", file=sys.stderr)
    return 1 if wrong else 0


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=(
            "Measures this project beside its peers. `python -m benchmarks profile CASE` shows where the time goes; "
            "`python -m benchmarks own-data --help` describes training on public labelled data."
        ),
    )
    parser.add_argument("cases", nargs="*", help="names of cases, or beginnings of them; all that fit the device")
    parser.add_argument("--list", action="store_true", help="print the cases and end")
    parser.add_argument("--report", action="store_true", help="measure nothing; write tables and pictures again")
    parser.add_argument("--rounds", type=int, help="iterations that count (default: 5, with --quick 1)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each process")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: seconds of CPU time of all threads, for a machine that is busy otherwise",
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one round, to see that it works")
    parser.add_argument(
        "--contenders", nargs="+", help="only those whose names begin so, and what they are compared with"
    )
    parser.add_argument("--results", type=Path, help="folder of the results; RESULTS.md is written beside it")
    chosen = parser.parse_args(arguments)
    chosen.options = Options(
        rounds=chosen.rounds or (1 if chosen.quick else 5),
        threads=chosen.threads,
        device=chosen.device,
        clock=chosen.clock,
        quick=chosen.quick,
    )
    try:
        chosen.cases = chosen_cases(chosen.cases, chosen.device)
    except LookupError as error:
        parser.error(str(error.args[0]))
    return chosen


def results_folder(chosen: argparse.Namespace) -> Path:
    """Folder of the results; smoke tests write to another one."""
    if chosen.results is not None:
        return chosen.results
    if chosen.quick or chosen.contenders:
        return Path(tempfile.mkdtemp(prefix="benchmarks-")) / "results"
    return HERE / "results"


def run(chosen: argparse.Namespace, folder: Path, command: str) -> list[str]:
    """Measures the chosen cases, and writes the files of each as soon as it is done.

    Returns:
        Contenders whose results differ from the reference's.
    """
    options: Options = chosen.options
    frame = {
        "command": command,
        "settings": plain(options),
        "machine": turns.call(Contender("", "benchmarks.machine:describe"), options),
        "versions": machine.versions(),
    }
    wrong = []
    for case in chosen.cases:
        start = time.perf_counter()
        print(f"\n## {case.title}\n", flush=True)
        content = {"case": case.name, "when": datetime.date.today().isoformat(), **frame, **measure(case, chosen)}
        content["took_seconds"] = round(time.perf_counter() - start, 1)
        report.write_json(folder / f"{case.name}.json", content)
        print(finish(case, content, folder), flush=True)
        print(f"\n({content['took_seconds']:.0f} seconds)", flush=True)
        wrong += report.unequal(content)
    return wrong


def finish(case: Case, content: dict[str, Any], folder: Path) -> str:
    """Writes table and picture of a case. Returns the table."""
    table = report.case_table(case, content)
    (folder / f"{case.name}.md").write_text(f"{table}\n")
    try:
        from benchmarks.pictures import draw

        draw(case, content, folder / f"{case.name}.png")
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
    return table


def measure(case: Case, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure a case; return plain data."""
    options: Options = chosen.options
    if case.comparisons is not None:
        comparisons = [restrict(comparison, chosen.contenders) for comparison in case.comparisons(options)]
        return {"comparisons": [turns.measure(comparison, options) for comparison in comparisons]}
    assert case.rows is not None
    rows: list[dict[str, Any]] = []
    errors: list[str] = []
    for contender in case.rows(options):
        try:
            rows += turns.call(contender, options)
        except turns.FailedError as error:
            errors.append(f"{contender.name}: {error}".lstrip(": "))
    return {"rows": rows, "errors": errors}


def restrict(comparison: Comparison, names: Sequence[str] | None) -> Comparison:
    """A comparison of some of its contenders, the first one always."""
    import dataclasses

    if not names:
        return comparison
    first, *others = comparison.contenders
    return dataclasses.replace(
        comparison, contenders=(first, *(each for each in others if each.name.startswith(tuple(names))))
    )


def profile(chosen: argparse.Namespace) -> int:
    """Prints the share of the time by operator, of the contenders asked for or ours, each in a fresh process."""
    for case in chosen.cases:
        if case.comparisons is None:
            print(f"{case.name} has nothing to profile")
            continue
        for comparison in case.comparisons(chosen.options):
            names = tuple(chosen.contenders or [OURS])
            for contender in [each for each in comparison.contenders if each.name.startswith(names)]:
                arguments = {"work": contender.work, "arguments": dict(contender.arguments)}
                print(f"\n{case.name} {comparison.name} {contender.name}\n")
                try:
                    print(
                        turns.call(Contender(contender.name, "benchmarks.profiling:of_work", arguments), chosen.options)
                    )
                except turns.FailedError as error:
                    print(f"failed: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
