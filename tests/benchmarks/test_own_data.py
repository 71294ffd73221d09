"""``python -m benchmarks own-data`` in small: splits, files, baselines, tables and a run."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from environments import FORKS, run_module
from PIL import Image

from benchmarks import __main__ as command
from benchmarks.own_data import baselines, report, runs
from benchmarks.own_data.command import Results, main
from benchmarks.own_data.sets import SETS, Loaded, Row, read, split, write
from perceiver_plugins.sdk.data.sound import write_wav


def rows(number: int, label: str = "a") -> list[Row]:
    return [Row(f"{label}{index}", f"text {index}", label) for index in range(number)]


def test_parts_are_disjoint_stratified_and_independent_of_the_order() -> None:
    loaded = Loaded([*rows(97), *rows(41, "b")])
    parts = split(loaded)
    keys = {name: [row.key for row in part] for name, part in parts.items()}
    assert sorted(key for part in keys.values() for key in part) == sorted(row.key for row in loaded.rows)
    for part in ("tune", "report"):  # 20 % of each class
        assert [sum(key.startswith(label) for key in keys[part]) for label in "ab"] == [19, 8]
    assert split(Loaded(loaded.rows[::-1])) == parts


@pytest.mark.parametrize("official", [None, rows(13, "b")])
def test_rows_to_check_are_training_rows_of_other_runs(official: list[Row] | None) -> None:
    loaded = Loaded([*rows(97), *rows(41, "b")], official)
    others, checked = split(loaded), split(loaded, check=True)
    assert [sum(row.label == label for row in checked["check"]) for label in "ab"] == [19, 8]
    assert others["check"] == []
    assert sorted(others["train"]) == sorted(checked["train"] + checked["check"])
    assert [checked[part] for part in ("tune", "report")] == [others[part] for part in ("tune", "report")]


def test_official_split_is_reported() -> None:
    official = rows(13, "b")
    parts = split(Loaded([*rows(60), *rows(60, "b")], official))
    assert parts["report"] == sorted(official, key=parts["report"].index)
    assert len(parts["tune"]) == 24
    assert len(parts["train"]) == 96


def test_beginnings_of_parts_have_rows_of_all_classes() -> None:
    parts = split(Loaded([row for label in "abc" for row in rows(2_000, label)]), quick=True, check=True)
    for part in parts.values():
        assert len(part) == 90
        assert {row.label for row in part} == {"a", "b", "c"}


def test_equal_texts_are_in_one_part() -> None:
    parts = split(Loaded([Row("same", "same", "a")] * 2 + rows(400)))
    assert sum(any(row.key == "same" for row in part) for part in parts.values()) == 1


@pytest.mark.parametrize("name", ["sst2", "cifar10", "spoken-digits", "wine", "diabetes"])
def test_files_contain_the_rows(name: str, tmp_path: Path) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    image = io.BytesIO()
    Image.fromarray(pixels).save(image, "png")
    write_wav(tmp_path / "a.wav", np.array([0.25, -0.5]), 8000)
    content: Any = {
        "text": 'line\u2028separator, "quote"',
        "image": image.getvalue(),
        "audio": (tmp_path / "a.wav").read_bytes(),
        "table": [0.1, 1e-300],
    }
    data_set = SETS[name]
    suffix = "wav" if data_set.kind == "audio" else "png"
    row = Row(f"class/1.{suffix}", content[data_set.kind], 0.25 if data_set.metric == "r2" else "class")
    ((found,), (label,)) = read(write(data_set, [row], ("x", "y"), tmp_path, "train"))
    if data_set.kind == "image":
        assert np.array_equal(found, pixels)
    elif data_set.kind == "audio":
        np.testing.assert_allclose(found, [0.25, -0.5], atol=1e-4)
    else:
        assert found == row.content
    assert label == str(row.label)


@pytest.mark.slow
def test_generated_tables_are_large_and_repeatable() -> None:
    for name in ("friedman", "clusters"):
        loaded = SETS[name].load(Path())
        assert len(loaded.rows) > 10_000
        assert loaded.rows == SETS[name].load(Path()).rows


def test_titanic_has_numbers_categories_and_missing_cells() -> None:
    loaded = SETS["titanic"].load(Path())
    columns = dict(zip(loaded.columns, zip(*(row.content for row in loaded.rows), strict=True), strict=True))
    assert len(loaded.rows) == 1309
    assert sum(row.label == "survived" for row in loaded.rows) == 500
    assert set(columns["sex"]) == {"female", "male"}
    assert columns["age"].count("") == 263


def test_baselines_of_tables_read_categories(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    colours = {"red": "a", "blue": "b", "": "a", "green": "b"}
    rows = [
        Row(str(index), [float(generator.normal()), colour], colours[colour])
        for index in range(20)
        for colour in colours
    ]
    new = [Row("new", ["", "violet"], "a"), Row("known", [0.0, "blue"], "b")]
    train = read(write(SETS["titanic"], rows, ("x", "colour"), tmp_path, "train"))
    test = read(write(SETS["titanic"], new, ("x", "colour"), tmp_path, "test"))
    for fit in (baselines.linear_classes, baselines.boosted_classes):
        predict, _ = fit(train)
        assert list(predict(train[0])) == train[1]
        assert predict(test[0])[1] == "b"


def test_text_baseline_chooses_characters_where_words_do_not_repeat(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    letters = {"vowels": list("aeiou"), "consonants": list("bcdfg")}
    examples = [
        Row(str(index), " ".join("".join(generator.choice(letters[label], 6)) for _ in range(3)), label)
        for index in range(40)
        for label in letters
    ]
    files = [write(SETS["sst2"], examples[start : start + 40], (), tmp_path, f"{start}") for start in (0, 40)]
    (result,) = baselines.measure("text", *files)
    assert result["features"] == "characters"
    assert result["metrics"]["accuracy"] == 1.0


@pytest.mark.slow
def test_convolutional_network_learns_within_its_cpu_seconds() -> None:
    colours = {"red": (200, 20, 20), "blue": (20, 20, 200)}
    images = [np.full((9, 9, 3), colour, np.uint8) for colour in colours.values()] * 8
    labels = list(colours) * 8
    predict, facts = baselines.convolutional((images, labels), 0.7, 0)
    assert predict(images) == labels
    assert facts["steps"] > 1
    _, facts = baselines.convolutional((images, [str(index % 10) for index in range(16)]), 0.01, 0)
    assert round(facts["parameters"], -3) == 141_000


def test_shifts_move_each_image_by_its_own_pixels() -> None:
    import torch

    images = torch.zeros(64, 1, 5, 7)
    images[:, :, 2, 3] = 1.0
    moved = baselines.shifted(images, 1)
    assert moved.sum((1, 2, 3)).eq(1.0).all()
    assert {tuple(index) for index in moved.nonzero()[:, 2:].tolist()} == {(y, x) for y in (1, 2, 3) for x in (2, 3, 4)}


def run_of(name: str, value: float, seed: int = 0, **values: Any) -> dict[str, Any]:
    run = {"set": name, "part": "report", "flags": [], "seed": seed, "code": "c", "metrics": {SETS[name].metric: value}}
    counts = {"train_rows": 1_234, "test_rows": 56, "parameters": 7_890, "epochs": 3}
    return run | counts | {"fit_cpu_seconds": 12.3, "test_cpu_seconds": 4.5, "curve": [(1.0, 0.5), (2.0, 0.6)]} | values


def content_of(runs: list[dict[str, Any]], bests: dict[str, float]) -> dict[str, Any]:
    baselines = [
        {
            "set": name,
            "part": "report",
            "seed": 0,
            "name": kind,
            "metrics": {SETS[name].metric: value},
            "cpu_seconds": 1,
        }
        for name, best in bests.items()
        for kind, value in (("good", best), ("bad", best - 0.5))
    ]
    return {"command": "C", "machine": {"processor": "P"}, "versions": {}, "runs": runs, "baselines": baselines}


def test_table_compares_the_mean_of_the_seeds_with_the_best_baseline() -> None:
    runs = [run_of("sst2", 0.80), run_of("sst2", 0.78, seed=1), run_of("diabetes", 0.40)]
    runs.append(run_of("sst2", 0.1, flags=["--other"]) | {"seed": 2})
    lines = report.table(content_of(runs, {"sst2": 0.81, "diabetes": 0.44}), "report", []).splitlines()
    text, numbers = lines[2:4]
    assert text == (
        "| SST-2 (1,234 / 56) | 79.0 (78.0 to 80.0) | 12 | 4 | 7,890 | 3 | good 81.0 (1); bad 31.0 (1) | -2.0 | yes |"
    )
    assert "| 0.400 |" in numbers
    assert numbers.endswith("| -0.040 | **no** |")
    assert lines[-1] == "- diabetes, seed 0: 0.500 (1 s), 0.600 (2 s)"


def test_equal_accuracy_differs_by_nothing_though_runs_are_of_less_precision() -> None:
    value = 111 / 113
    run = run_of("wine", float(np.float32(value)) - 1e-8)
    assert "| +0.0 | yes |" in report.table(content_of([run], {"wine": value}), "report", [])
    run = run_of("wine", value - 0.02 - 1e-8)
    assert "| -2.0 | yes |" in report.table(content_of([run], {"wine": value}), "report", [])


def test_section_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    path.write_text("# Results\n\nBefore.\n")
    report.update_section(path, content_of([run_of("wine", 0.5)], {}))
    first = path.read_text()
    path.write_text(f"{first}\n## After\n")
    report.update_section(path, content_of([run_of("wine", 0.75)], {}))
    second = path.read_text()
    assert first.replace("| 50.0 |", "| 75.0 |") + "\n## After\n" == second
    assert second.startswith("# Results\n\nBefore.\n\n<!-- own-data: begin -->\n\n## Own data\n")


def test_section_has_a_table_for_each_recipe() -> None:
    recipe = ["--config=recipes/words.yaml"]
    runs = [
        run_of("sst2", 0.5),
        run_of("sst2", 0.75, flags=recipe),
        run_of("wine", 0.8, seed=1),
        run_of("diabetes", 0.4),
        run_of("wine", 1.0, flags=["--a"]),
    ]
    lines = report.section(content_of(runs, {})).splitlines()
    commands = [line.removeprefix("    ") for line in lines if line.startswith("    ")]
    assert commands == [
        "python -m benchmarks own-data --part report --set sst2 diabetes --seeds 0",
        "python -m benchmarks own-data --part report --set wine --seeds 1",
        "python -m benchmarks own-data --part report --set sst2 --seeds 0 -- --config=recipes/words.yaml",
    ]
    assert [line.split(" | ")[1] for line in lines if line.startswith(("| SST-2", "| wine"))] == [
        "50.0",
        "80.0",
        "75.0",
    ]


def test_recipes_are_files_of_the_repository() -> None:
    (recipe, *others) = (runs.resolve_config(flag) for flag in ("--config=recipes/mnist.yaml", "--data=text-files"))
    assert Path(recipe.removeprefix("--config=")).is_file()
    assert others == ["--data=text-files"]


def test_results_replace_an_entry_with_the_same_key(tmp_path: Path) -> None:
    results = Results(tmp_path / "own-data.json", "C")
    key = {"set": "wine", "part": "tune", "flags": ["--a"], "seed": 0}
    for value in (1, 2):
        results.add("runs", key, {"value": value})
    results.add("runs", key | {"flags": []}, {"value": 3})
    assert sorted(run["value"] for run in results.read()["runs"]) == [2, 3]
    assert results.find("runs", key) == [key | {"value": 2}]


def test_sets_without_files_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--set", "sst2", "--data", str(tmp_path), "--results", str(tmp_path / "results")]
    assert main(arguments) == 0
    assert f"sst2: sst2/train.jsonl.xz not found in {tmp_path} (skipped)" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.cli
def test_measured_process_is_run_like_python_m(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("import time\nwhile time.process_time() < 0.3:\n    pass\n")
    assert 0.3 <= runs.call(["work"], tmp_path) < 3.0
    (tmp_path / "work.py").write_text("import os, sys\nprint(os.environ['OMP_NUM_THREADS'], sys.argv[1])\nsys.exit(2)")
    with pytest.raises(runs.FailedError, match=r"^1 --flag$"):
        runs.call(["work", "--flag"], tmp_path)
    (tmp_path / "work.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(KeyboardInterrupt):
        runs.call(["work"], tmp_path)


def call_in_fork(arguments: Sequence[str], folder: Path) -> float:
    """Do what ``runs.call`` does, without the seconds of imports."""
    variables = runs.ONE_THREAD | {"PERCEIVER_CACHE": str(folder / "cache")}
    with ProcessPoolExecutor(1, mp_context=FORKS) as executor:
        return executor.submit(run_module, folder, variables, folder / "output.txt", [*arguments]).result(timeout=600)


@pytest.mark.slow
def test_quick_run_measures_the_command_and_its_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "call", call_in_fork)
    words = ["own-data", "--quick", "--set", "wine", "--seeds", "3", "--results", str(tmp_path)]
    assert command.main([*words, "--", "--task.patience=9"]) == 0
    printed = capsys.readouterr().out
    assert command.main([*words, "--", "--task.patience=9"]) == 0
    table = capsys.readouterr().out
    assert len(printed.splitlines()) == len(table.splitlines()) + 3  # nothing is measured again
    assert printed.endswith(table)
    content = json.loads((tmp_path / "own-data.json").read_text())
    (run,) = content["runs"]
    assert run["flags"] == ["--trainer.max_epochs=1", "--task.patience=9"]
    assert run["epochs"] == 1
    assert 0.0 < run["metrics"]["accuracy"] < 1.0
    assert 0.0 < run["curve"][0][0] < run["fit_cpu_seconds"]
    assert {baseline["name"] for baseline in content["baselines"]} == {"logistic regression", "gradient boosting"}
    assert "| wine (90 / 36) |" in (tmp_path / "own-data.md").read_text()
