"""Commands, Python code and figures of the README and the guides."""

from __future__ import annotations

import gzip
import json
import re
import shlex
import statistics
import tomllib
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers
import yaml
from PIL import Image

from perceiver_cli.main import main
from perceiver_plugins.music import Notes, write_midi

ROOT = Path(__file__).parents[1]
GUIDES = ("getting-started", "your-own-data", "training", "prediction", "music", "conversion", "python", "plugins")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


README = read("README.md")
PAGES = [README, *(read(f"docs/{guide}.md") for guide in GUIDES)]


def blocks(language: str, page: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def commands(start: str, *pages: str) -> list[list[str]]:
    """Return the distinct command lines that begin with ``start``, as lists of arguments."""
    lines = "\n".join(block for page in pages for block in blocks("bash", page)).replace("\\\n", " ").splitlines()
    found = [shlex.split(line, comments=True) for line in lines if line.startswith(start)]
    return [[*command] for command in dict.fromkeys(map(tuple, found))]


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """A small published model, in the hub's layout."""
    folder = tmp_path_factory.mktemp("published")
    config = transformers.PerceiverConfig(
        d_model=16, d_latents=16, num_latents=4, num_self_attends_per_block=1, num_self_attention_heads=2,
        num_cross_attention_heads=2, max_position_embeddings=128, v_channels=16, qk_channels=16,
    )  # fmt: skip
    transformers.PerceiverForMaskedLM(config).save_pretrained(folder)
    transformers.PerceiverTokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> str:
    """Folder in which the tests share prepared data."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.mark.slow
@pytest.mark.parametrize(("page", "num_examples"), [("README.md", 1), ("docs/python.md", 11)])
def test_python_examples_run(page, num_examples, tmp_path, monkeypatch, published, cache):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEIVER_CACHE", cache)
    write_user_files(tmp_path)
    namespace: dict[str, object] = {}
    examples = [block for block in blocks("python", read(page)) if not block.startswith("# my_adapters.py")]
    assert len(examples) == num_examples
    for example in examples:
        exec(example.replace("deepmind/language-perceiver", str(published)), namespace)
    assert namespace["model"].config.num_latents == 4
    assert type(namespace.get("published")) in (type(None), transformers.PerceiverForMaskedLM)


def write_user_files(folder: Path) -> None:
    """Write the files that the commands name."""
    (adapters,) = (block for block in blocks("python", README) if block.startswith("# my_adapters.py"))
    (folder / "my_adapters.py").write_text(adapters)
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("some text")
    with gzip.open(folder / "reviews.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"review": f"good {i}", "stars": i % 5}) + "\n" for i in range(40))
    (folder / "patients.csv").write_text("age,bmi,progression\n" + "\n".join(f"{i},{i % 7},{2 * i}" for i in range(30)))
    rows = "\n".join(
        f"{i},a useful thing of kind {i},photos/{'cat' if i % 2 else 'dog'}/{i % 10}.png,{i % 3}" for i in range(30)
    )
    (folder / "products.csv").write_text(f"price,description,photo,category\n{rows}")
    tags = [["rain"], [], ["sun", "wind"], ["rain", "sun"], ["wind"]]
    with (folder / "reports.csv").open("w") as table, (folder / "reports.jsonl").open("w") as lines:
        table.write("report,tags,rain,wind,sun,temperature,pressure,min,max\n")
        for i in range(40):
            row = tags[i % 5]
            columns = ",".join(str(int(name in row)) for name in ("rain", "wind", "sun"))
            table.write(f'weather {i},"{", ".join(row)}",{columns},{i % 9},{i % 4},{i},{2 * i}\n')
            lines.write(json.dumps({"report": f"weather {i}", "tags": row}) + "\n")
    (folder / "songs").mkdir()
    for i in range(3):
        write_midi(folder / "songs" / f"{i}.mid", Notes.from_rows([(0, 1, 60 + i, 64, False)]))
    rows = [{"clip": [[i, 0.5], [1.0, i % 3]], "label": i % 2} for i in range(20)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "clips.parquet")
    for i in range(10):
        path = folder / "recordings" / ("yes" if i % 2 else "no") / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(np.arange(2000, dtype="<i2").tobytes())
        for name in ("scans", "vectors"):
            path = folder / name / ("chair" if i % 2 else "table") / f"{i}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.full((6, 4), i, dtype=np.float32) + np.eye(6, 4, dtype=np.float32))
        path = folder / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (i, 2 * i, 3 * i)).save(path)


def needs_earlier_run(command: list[str]) -> bool:
    """Return True if a command reads the config or a checkpoint of another run; tests/cli runs such commands."""
    flags = dict(argument.partition("=")[::2] for argument in command)
    weights = (flags.get(name, "") for name in ("--model.params", "--model.encoder.params"))
    return "--config" in flags or "--ckpt_path" in flags or any(name.endswith(".ckpt") for name in weights)


INDEPENDENT = [
    command
    for command in commands("perceiver fit", *PAGES)
    if "--plugin=./my_adapters.py" not in command and not needs_earlier_run(command)
]


@pytest.fixture(scope="module")
def user_files(tmp_path_factory) -> Path:
    """Folder with the files that the commands name. Read-only."""
    folder = tmp_path_factory.mktemp("user")
    write_user_files(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("arguments", INDEPENDENT, ids=" ".join)
def test_fit_commands_parse(arguments, user_files, monkeypatch, capsys, published, cache):
    monkeypatch.chdir(user_files)
    monkeypatch.setenv("PERCEIVER_CACHE", cache)
    monkeypatch.setattr("perceiver_plugins.text.data.python_code.TOTAL_CHARACTERS", 500_000)  # of 2,000,000
    source = "--model.encoder.params=deepmind/language-perceiver"
    local = [f"--model.encoder.params={published}" if argument == source else argument for argument in arguments[1:]]
    assert main([*local, "--print_config"]) == 0
    task = next(argument.partition("=")[2] for argument in arguments if argument.startswith("--task="))
    assert yaml.safe_load(capsys.readouterr().out)["task"]["name"] == task


@pytest.mark.slow
def test_adapter_in_a_file_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_user_files(tmp_path)
    (command,) = (command for command in commands("perceiver fit", README) if "--plugin=./my_adapters.py" in command)
    small = ["--model.num_latents=4", "--trainer.max_steps=2", "--trainer.enable_progress_bar=false"]
    assert main([*command[1:], *small, "--trainer.accelerator=cpu"]) == 0
    assert "Trained for 2 steps." in capsys.readouterr().out


def test_entry_point_is_that_of_a_new_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (command,) = commands("perceiver new-plugin", *PAGES)
    assert main(command[1:]) == 0
    made = tomllib.loads((tmp_path / command[2] / "pyproject.toml").read_text())
    shown = tomllib.loads(blocks("toml", read("docs/plugins.md"))[0])
    assert made["project"]["entry-points"] == shown["project"]["entry-points"]


def contenders(case: str) -> dict[str, dict]:
    """Return what a benchmark measured, by contender."""
    results = json.loads(read(f"benchmarks/results/{case}.json"))
    return {contender["name"]: contender for contender in results["comparisons"][0]["contenders"]}


def relative_times(case: str) -> list[str]:
    """Return the median over rounds of each implementation's time over the time of perceiver."""
    measured = contenders(case)
    baseline = measured["perceiver-zoo"]["seconds"]
    medians = (
        statistics.median(a / b for a, b in zip(measured[name]["seconds"], baseline, strict=True))
        for name in ("perceiver-zoo", "Hugging Face", "krasserm")
    )
    return [f"{median:.2f}" for median in medians]


@pytest.mark.parametrize(
    ("row", "case"),
    [
        ("language model, forward: time", "language-model-forward"),
        ("language model, training step: time", "language-model-train-fused"),
        ("optical flow, forward: time", "optical-flow"),
    ],
)
def test_times_are_those_of_the_benchmarks(row, case):
    assert f"| {row} | {' | '.join(relative_times(case))} | not measured |" in README
    assert case in re.search(r"`python -m benchmarks ([^`]+)`", README)[1].split()


def test_memory_is_that_of_the_benchmark():
    measured = contenders("optical-flow")
    peaks = [f"{measured[name]['peak_gib']:.2f} GiB" for name in ("perceiver-zoo", "Hugging Face", "krasserm")]
    assert f"| optical flow, forward: peak memory | {' | '.join(peaks)} | not measured |" in README


def test_results_of_the_zoo_are_those_of_the_recipes():
    record = read("recipes/RESULTS.md")
    results = yaml.safe_load(read("recipes/results.yaml"))["results"]
    missing = [row["data"] for row in results if not re.search(rf"(?<![\d.]){re.escape(row['value'])}(?![\d])", record)]
    assert not missing
