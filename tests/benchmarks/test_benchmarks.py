"""``python -m benchmarks`` in small, and what it concludes from figures."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from environments import FORKS
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks import __main__ as command
from benchmarks import report, turns
from benchmarks.case import FLOOR, HUGGING_FACE, OURS, Case, Comparison, Contender, Options
from benchmarks.cases import all_cases, chosen_cases
from benchmarks.products import Product, fastest, operator, record
from benchmarks.turns import difference

REPOSITORY = Path(__file__).parents[2]
WORK = "work_for_turns"
ROWS = Contender("", f"{WORK}:some_rows")


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in forks, without the seconds of imports."""
    monkeypatch.setattr(turns, "multiprocessing", SimpleNamespace(get_context=lambda method: FORKS))


def run_case(case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, *flags: str) -> tuple[int, dict[str, Any]]:
    """Runs the command on a case that is not one of its own.

    Returns:
        The exit code, and what it kept.
    """
    monkeypatch.setattr(command, "all_cases", lambda: {case.name: case})
    monkeypatch.setattr(command, "chosen_cases", lambda patterns, device: [case])
    code = command.main([case.name, "--rounds", "2", "--results", str(folder / "results"), *flags])
    return code, json.loads((folder / "results" / f"{case.name}.json").read_text())


def test_module_lists_its_cases() -> None:
    command = [sys.executable, "-m", "benchmarks", "--list"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("language-model-forward ")


@pytest.mark.slow
@pytest.mark.cli
def test_processes_are_fresh() -> None:
    variables = {"SOME_VARIABLE": "value"}
    rows = turns.call(Contender("", f"{WORK}:imported", environment=variables), Options(threads=1))
    assert rows == {"torch": True, "pytorch_lightning": False, "threads": "1", "variable": "value"}


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_quick_run_compares_the_language_model_with_its_peers(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    words = ["language-model-forward", "--quick", "--results", str(folder), "--contenders", HUGGING_FACE, FLOOR]
    assert command.main(words) == 0

    content = json.loads((folder / "language-model-forward.json").read_text())
    assert content["machine"]["processor"]
    assert content["versions"]["torch"] == torch.__version__.partition("+")[0]
    contenders = {one["name"]: one for one in content["comparisons"][0]["contenders"]}
    ours, theirs, floor = contenders[OURS], contenders[HUGGING_FACE], contenders[FLOOR]
    assert theirs["equal"]
    assert theirs["difference"] < 1e-5
    assert ours["facts"]["parameters"] == theirs["facts"]["parameters"]
    for one in (ours, theirs, floor):
        assert len(one["seconds"]) == 1
    # What the process has before any model is a part of its peak.
    assert 0.0 < ours["marks"]["torch"] < ours["marks"]["imports"] < ours["peak_gib"]

    table = (folder / "language-model-forward.md").read_text()
    results = (tmp_path / "RESULTS.md").read_text()
    assert HUGGING_FACE in table
    assert table.strip() in results
    assert content["machine"]["processor"] in results
    assert content["command"] in results
    assert (folder / "language-model-forward.png").read_bytes().startswith(b"\x89PNG")
    assert "results/language-model-forward.png" in results


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_unequal_results_and_failures_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders = (
        Contender("first", f"{WORK}:squares", {"number": 9}),
        Contender("wrong", f"{WORK}:squares", {"number": 9, "wrong": 1e-3}),
        Contender("not exact", f"{WORK}:squares", {"number": 9, "wrong": 1e-3}, exact=False),
        Contender("absent", f"{WORK}:unable"),
    )
    case = Case("squares", "Squares", "Of numbers.", lambda options: [Comparison(contenders)])
    code, content = run_case(case, tmp_path, monkeypatch)
    assert code == 1
    assert "UNEQUAL RESULTS: squares: wrong" in capsys.readouterr().err
    first, wrong, inexact, absent = content["comparisons"][0]["contenders"]
    assert len(first["seconds"]) == 2
    assert wrong["equal"] is False
    assert wrong["difference"] == pytest.approx(1e-3, rel=1e-3)
    assert "equal" not in inexact
    assert absent["error"] == "RuntimeError: there is no such peer"

    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    assert "UNEQUAL" in rows["wrong"]
    assert "UNEQUAL" not in rows["not exact"]
    assert "failed: RuntimeError: there is no such peer" in rows["absent"]


@pytest.mark.slow
@pytest.mark.usefixtures("forks")
def test_run_of_some_cases_keeps_the_results_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "results"
    case, other = (Case(name, name, "Text.", rows=lambda options: [ROWS], picture=None) for name in ("rows", "other"))
    _, content = run_case(case, tmp_path, monkeypatch)
    report.write_json(folder / "other.json", content | {"case": "other"})
    (folder / "by-hand.md").write_text("What another program left.\n")
    before = (folder / "other.json").read_bytes()
    run_case(case, tmp_path, monkeypatch, "--report")
    assert (folder / "other.json").read_bytes() == before
    results = report.write_results(folder, {"rows": case, "other": other}).read_text()
    assert results.index("## rows") < results.index("## other") < results.index("## By hand")
    assert "| a | **2.00** |" in results  # the median, and bold because it was chosen
    assert "What another program left." in results


def test_ratios_are_taken_within_a_round() -> None:
    # The machine was twice as slow in the second round: the other contender takes three times as long in both.
    assert report.ratios([1.0, 2.0], [3.0, 6.0]) == [3.0, 3.0]


def test_slopes() -> None:
    sizes = [1000.0 * 2**i for i in range(6)]
    assert report.slope([(size, 3e-6 * size**1.5) for size in sizes]) == pytest.approx(1.5)
    # A constant part counts less in the larger half.
    assert report.slope([(size, 1.0 + size) for size in sizes]) == pytest.approx(1.0, abs=1e-3)
    assert report.kib_per_position([(size, 0.5 + 7 * size / 2**20) for size in sizes]) == pytest.approx(7.0)


def test_differences_are_relative_to_the_largest_number() -> None:
    reference = torch.tensor([0.0, -4.0]).numpy()
    assert difference(reference, torch.tensor([0.002, -4.0]).numpy()) == pytest.approx(0.0005)
    assert difference(reference, torch.tensor([0.0, math.nan]).numpy()) == math.inf
    assert difference(reference, torch.tensor([0.0]).numpy()) == math.inf


def flop(products: Counter[Product]) -> int:
    return sum(product.flop * count for product, count in products.items())


LAYER = 2 * 10 * 6 * 10  # 10 rows of 6 channels to 10, and back as well
ATTENTION = 2 * 4 * 5 * 5 * 3  # 2 heads of 2 examples, 5 x 5 scores of 3 channels, and the sums of the values as well
LAST = 2 * 20 * 3 * 4


def test_computed_products_are_recorded() -> None:
    layers = nn.Sequential(nn.Linear(6, 10), nn.GELU(), nn.Linear(10, 6))
    x = torch.randn(2, 5, 6)

    def run() -> torch.Tensor:
        heads = layers(x).unflatten(-1, (2, 3)).transpose(1, 2)
        return torch.matmul(scaled_dot_product_attention(heads, heads, heads), torch.ones(3, 4))

    forward = 2 * LAYER + 2 * ATTENTION + LAST
    for context in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with context():
            assert flop(record(run)) == forward, context

    backward = LAYER + 2 * LAYER + LAST  # no gradients of x, and none of the ones
    # A kernel computes the scores again in the backward pass, or does not if all were kept.
    attention = {forward + backward + number * ATTENTION for number in (4, 5)}
    assert flop(record(lambda: run().sum().backward())) in attention


def test_attention_kernels_of_any_name_are_recorded() -> None:
    """Versions of torch differ in the names of their kernels: none may be taken for no work at all."""
    kernel = "aten::_scaled_dot_product_of_another_version"
    arrays = [torch.randn(2, 2, 5, 3) for _ in range(3)]
    for name, number in ((kernel, 2), (f"{kernel}_backward", 5)):
        products_of = operator(name)
        assert products_of is not None
        arguments = arrays if number == 2 else [torch.randn(2, 2, 5, 3), *arrays]
        assert flop(Counter(products_of(*arguments))) <= number * ATTENTION
        assert sum(Counter(products_of(*arguments)).values()) == number
    assert operator("aten::add") is None


def test_products_of_this_projects_layers_are_recorded() -> None:
    from perceiver_core import MultiHeadAttention
    from perceiver_core.kernels.override import force_kernel

    n, m, c = 64, 4096, 32  # large enough for whatever library it prefers
    attention = MultiHeadAttention(2, c, c)
    queries, inputs = torch.randn(1, n, c), torch.randn(1, m, c)
    attention(queries, inputs)  # finds out what this machine is good at
    expected = 2 * (2 * n * c * c + 2 * m * c * c + 2 * n * m * c)  # projections of both sides, scores and sums
    for path in ("plain", "fused", "chunked"):
        with torch.no_grad(), force_kernel(path):
            products = record(lambda: attention(queries, inputs))
        assert flop(products) == expected, path


def test_fastest_computation_of_a_product_runs() -> None:
    for product in (Product(1, 7, 5, 3), Product(3, 2000, 8, 1000)):
        fastest(product, "cpu", torch.float32)()


def test_cases_are_chosen_by_name_and_device() -> None:
    cases = all_cases()
    assert {"language-model-forward", "image-classifier", "optical-flow", "startup"} <= cases.keys()
    assert {case.name for case in chosen_cases([], "cpu")}.isdisjoint(name for name in cases if name.startswith("gpu"))
    names = [case.name for case in chosen_cases(["language-model"], "cpu")]
    assert len(names) > 1
    assert all(name.startswith("language-model-") for name in names)
    with pytest.raises(LookupError, match="'languge' is no case; there are: language-model-forward"):
        chosen_cases(["languge"], "cpu")
    for case in cases.values():
        made = case.comparisons or case.rows
        assert made is not None
        assert made(Options(quick=True)), case.name
