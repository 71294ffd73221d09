"""Fixtures that run the command with tiny models, in this process or in a subprocess."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from environments import FORKS, run_command
from PIL import Image
from sklearn.datasets import load_digits

from perceiver_cli.main import main

HERE = Path(__file__).parent
SCRIPT = str(Path(sys.executable).with_name("perceiver"))

MODEL = (
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--model.encoder.num_input_channels=16",
    "--model.encoder.num_self_attention_layers_per_block=1",
)
TRAINER = (
    "--trainer.accelerator=cpu",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)
STEPS_PER_EPOCH = 5

TINY = (
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--model.encoder.num_cross_attention_heads=1",
    "--model.encoder.num_self_attention_layers_per_block=1",
    # Larger than the default, so that predictions depend on the inputs.
    "--model.encoder.init_scale=0.2",
    "--model.decoder.init_scale=0.2",
    "--lr_scheduler=none",
    "--optimizer.lr=0.01",
)
CLASS_QUERY = "--model.decoder.num_output_query_channels=16"


@dataclass(frozen=True)
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error line of a command with exit code 2, which must be its only output on standard error."""
        assert self.code == 2, self
        (line,) = self.err.splitlines()
        assert line.startswith("perceiver: "), line
        assert len(line) < 600, line
        return line.removeprefix("perceiver: ")


@dataclass(frozen=True)
class TrainedRun:
    """A finished run and its folder."""

    flags: list[str]
    folder: Path
    result: Result

    @property
    def best(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"


def folder_of(result: Result) -> Path:
    """Return the folder of a run from its report."""
    assert result.code == 0, result.err
    (line,) = [line for line in result.out.splitlines() if line.startswith("Latest state: ")]
    return Path(line.removeprefix("Latest state: ")).parents[1]


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="session")
def load() -> Callable[[Path], dict[str, Any]]:
    """Return a function that reads a checkpoint."""
    return read


@pytest.fixture(scope="session")
def assert_same_training_state() -> Callable[[Path, Path], None]:
    """Return a function that compares weights, optimizer and schedule of two checkpoints bit by bit."""

    def assert_same(left: Path, right: Path) -> None:
        expected, actual = read(left), read(right)
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
            torch.testing.assert_close(actual[part], expected[part], rtol=0, atol=0)

    return assert_same


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with text for training (five batches of two), validation and test."""
    folder = tmp_path_factory.mktemp("texts")
    text = " ".join(f"word{number % 37} näh" for number in range(100)).encode()
    (folder / "train.txt").write_bytes(text[: STEPS_PER_EPOCH * 2 * 32])
    (folder / "val.txt").write_bytes(text[320:448])
    (folder / "test.txt").write_bytes(text[448:600])
    return folder


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of other processes."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PL_")}
    cache = str(tmp_path_factory.mktemp("cache"))
    # One thread, as in this process, so that sums are bit-equal.
    changed = {"PERCEIVER_CACHE": cache, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    return inherited | changed


@pytest.fixture(scope="session")
def data(texts: Path) -> list[str]:
    """Flags of the data."""
    files = [f"--data.{split}_files={texts / split}.txt" for split in ("train", "val", "test")]
    return ["--data=text-files", *files, "--data.max_seq_len=32", "--data.batch_size=2"]


@pytest.fixture(scope="session")
def model() -> list[str]:
    """Flags of a small model."""
    return [*MODEL]


@pytest.fixture(scope="session")
def trainer() -> list[str]:
    """Flags of a quiet trainer on the CPU."""
    return [*TRAINER]


@pytest.fixture(scope="session")
def small(data: list[str], model: list[str], trainer: list[str]) -> list[str]:
    """Flags of a small model, its data and its trainer."""
    return ["--task=mlm", *data, *model, *trainer]


@pytest.fixture(scope="session")
def start(environment: dict[str, str]) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the installed command in a subprocess."""

    def start(*argv: str, cwd: Path, **variables: str) -> subprocess.Popen[str]:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([SCRIPT, *argv], cwd=cwd, env=environment | variables, text=True, **pipes)

    return start


@pytest.fixture(scope="session")
def finish() -> Callable[..., Result]:
    """Return a function that waits for a subprocess of :func:`start`."""

    def finish(process: subprocess.Popen[str], stdin: str = "") -> Result:
        out, err = process.communicate(stdin, timeout=300)
        return Result(process.returncode, out, err)

    return finish


@pytest.fixture(scope="session")
def fork(environment: dict[str, str]) -> Callable[..., int]:
    """Return a function that runs the command in a process of its own, without the seconds of imports.

    It returns the exit code: minus the number of the signal that ended the process.
    """

    def fork(folder: Path, *argv: str, **variables: str) -> int:
        process = FORKS.Process(target=run_command, args=(folder, environment | variables, HERE, [*argv]))
        process.start()
        process.join(timeout=300)
        return process.exitcode

    return fork


@pytest.fixture(scope="session")
def trained(run_in: Callable[..., Result], small: list[str], tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Run of two epochs and two steps. Read-only."""
    cwd = tmp_path_factory.mktemp("trained")
    flags = [*small, "--trainer.max_steps=12", "--optimizer.lr=0.01"]
    result = run_in(cwd, "fit", *flags)
    assert result.code == 0, result.err
    return TrainedRun(flags, cwd / "logs" / "mlm" / "version_0", result)


# Small models of all kinds


@pytest.fixture(scope="session")
def run_in(environment: dict[str, str]) -> Callable[..., Result]:
    """Return a function that runs the command in this process, in a given folder."""

    def run_in(folder: Path, *argv: str, **variables: str) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.syspath_prepend(HERE)
            keep_surroundings(patch, environment)
            for name, value in variables.items():
                patch.setenv(name, value)
            return Result(main(argv), out.getvalue(), err.getvalue())

    return run_in


@pytest.fixture(scope="session")
def train(run_in: Callable[..., Result], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., TrainedRun]:
    """Return a function that trains in this process, in a new folder. Its runs are read-only."""

    def train(*argv: str) -> TrainedRun:
        flags = [*argv, *TINY, *TRAINER]
        cwd = tmp_path_factory.mktemp("run")
        result = run_in(cwd, "fit", *flags)
        return TrainedRun(flags, cwd / folder_of(result), result)

    return train


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with seven of scikit-learn's digits, two of them in a subfolder, and a colour image."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    for number, pixels in enumerate(load_digits().images[:7]):
        path = folder / ("more" if number > 4 else ".") / f"{number}.png"
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(path)
    colours = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
    Image.fromarray(colours).save(folder / "photo.jpg")
    return folder


@pytest.fixture
def undecodable_name(pictures: Path, tmp_path: Path) -> str:
    """Picture in the working directory whose name is not UTF-8."""
    name = os.fsdecode(b"stra\xdfe.png")
    try:
        (tmp_path / name).write_bytes((pictures / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system has names of characters")
    return name


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with labelled texts: 40 for training, 6 for validation and 9 for test; "gut" is the rarer class."""
    folder = tmp_path_factory.mktemp("reviews")
    for split, numbers in {"train": range(40), "val": range(40, 46), "test": range(46, 55)}.items():
        texts = [(f"näht {n} <b>gut</b>", "gut") if n % 4 == 0 else (f"schlecht & {n}", "schlecht") for n in numbers]
        rows = [json.dumps({"text": text, "label": label}) for text, label in texts]
        (folder / f"{split}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def labelled(reviews: Path) -> list[str]:
    """Flags of the labelled texts."""
    files = [f"--data.{split}_files={reviews / split}.jsonl" for split in ("train", "val", "test")]
    return ["--data=text-files", *files, "--data.max_seq_len=32", "--data.batch_size=8"]


@pytest.fixture(scope="session")
def image_classifier(train: Callable[..., TrainedRun]) -> TrainedRun:
    """Trained classifier of handwritten digits."""
    pixels = ["--model.encoder=image-pixels", "--model.encoder.num_frequency_bands=3", CLASS_QUERY]
    short = ["--trainer.max_steps=8", "--trainer.val_check_interval=4", "--trainer.limit_val_batches=2"]
    return train("--task=image-classification", "--data=digits", "--task.ema_decay=null", *pixels, *short)


@pytest.fixture(scope="session")
def text_classifier(train: Callable[..., TrainedRun], labelled: list[str]) -> TrainedRun:
    """Trained classifier of the labelled texts."""
    channels = ["--model.encoder.num_input_channels=16", CLASS_QUERY]
    return train("--task=text-classification", *labelled, *channels, "--trainer.max_epochs=3")


@pytest.fixture(scope="session")
def token_classifier(train: Callable[..., TrainedRun], tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """Trained classifier of tokens: names of people, names of cities and other words."""
    file = tmp_path_factory.mktemp("words") / "train.jsonl"
    labels = ["person", "other", "other", "city"]
    cities = ["Ulm", "Köln", "Bonn", "Kiel", "Trier", "Essen"]
    rows = [{"tokens": ["Anna", "lives", "in", city], "label": labels} for city in cities]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = ["--data=text-files", f"--data.train_files={file}", "--data.max_seq_len=32", "--data.batch_size=5"]
    channels = "--model.encoder.num_input_channels=16"
    return train("--task=token-classification", *data, channels, "--trainer.max_epochs=15")


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table of numbers: y and z depend on a and b, and some values of b are missing."""
    file = tmp_path_factory.mktemp("table") / "train.csv"
    rows = [f"{a},{'' if a % 7 == 3 else a % 5},{100 + 2 * a},{-a % 5 / 100}" for a in range(40)]
    file.write_text("\n".join(["a,b,y,z", *rows]))
    return file


@pytest.fixture(scope="session")
def regressor(train: Callable[..., TrainedRun], table: Path) -> TrainedRun:
    """Trained regression of the table's y and z."""
    data = ["--data=table-files", f"--data.train_files={table}", '--data.label_column=["y", "z"]']
    channels = ["--model.encoder.num_input_channels=16", CLASS_QUERY]
    options = ["--data.batch_size=12", "--trainer.max_epochs=3", "--checkpoint.best=lowest-loss"]
    return train("--task=regression", *data, *channels, *options)


def keep_surroundings(patch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Use the tests' cache, and restore environment variables that a run sets."""
    patch.setenv("PERCEIVER_CACHE", environment["PERCEIVER_CACHE"])
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        patch.setenv(variable, "0")
        patch.delenv(variable)


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(HERE)
    keep_surroundings(monkeypatch, environment)
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def perceiver(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Return a function that runs the command in this process, without the cost of imports."""

    def run(*argv: str) -> Result:
        capsys.readouterr()
        return Result(main(argv), *capsys.readouterr())

    return run


@pytest.fixture
def fit(perceiver: Callable[..., Result]) -> Callable[..., Path]:
    """Return a function that trains in this process and returns the run's folder."""

    def fit(*argv: str) -> Path:
        return folder_of(perceiver("fit", *argv))

    return fit
