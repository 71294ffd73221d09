"""Data modules chosen by a path (``--data=PATH``)."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from perceiver_cli.run_config import read_run


@pytest.fixture
def data_of():
    """Function that returns the data section of a command line."""

    def data_of(*argv: str) -> dict:
        return read_run("fit", argv).values["data"]

    return data_of


@pytest.fixture(autouse=True)
def _files():
    for name in ("reviews.csv", "reviews.jsonl.gz", "notes.txt", "photos.zip"):
        Path(name).touch()
    Path("both.yaml").write_text(yaml.safe_dump({"data": {"name": "notes.txt", "train_files": "other.txt"}}))
    for name in ("photos", "my songs", "digits"):
        Path(name).mkdir()


@pytest.mark.parametrize(
    ("flags", "module", "option"),
    [
        ("--task=mlm --data=notes.txt", "text-files", "train_files"),
        ("--task=clm --data=photos", "text-files", "train_files"),
        ("--task=clm --data=note*.txt", "text-files", "train_files"),
        ("--task=clm --data=note*", "text-files", "train_files"),
        ("--task=text-classification --data=reviews.jsonl.gz", "text-files", "train_files"),
        ("--task=regression --data=reviews.csv", "table-files", "train_files"),
        ("--task=regression --data=reviews.csv --model.encoder=text", "text-files", "train_files"),
        ("--task=classification --data=reviews.jsonl.gz", "table-files", "train_files"),
        ("--task=classification --data=photos", "image-folder", "path"),
        ("--task=classification --data=photos.zip --model.encoder=audio-video-label", "video-folder", "path"),
        ("--task=classification --data=photos --model.encoder=audio-patches", "audio-folder", "path"),
        ("--task=image-classification --data=photos.zip", "image-folder", "path"),
        ("--task=symbolic-music --data=photos", "midi-files", "path"),
        ("--model=mnist-classifier --data=photos", "image-folder", "path"),
    ],
)
def test_path_chooses_the_module_that_fits_task_and_model(data_of, flags, module, option):
    data = data_of(*flags.split())
    assert (data["name"], data[option]) == (module, flags.split("--data=")[1].split()[0])


def test_registered_name_takes_precedence_over_a_folder(data_of):
    assert data_of("--task=image-classification", "--data=digits")["name"] == "digits"
    assert data_of("--task=image-classification", "--data=./digits")["path"] == "./digits"


def test_defaults_of_the_module_apply(data_of):
    named = data_of("--task=text-classification", "--data=text-files", "--data.train_files=reviews.csv")
    chosen = data_of("--task=text-classification", "--data=reviews.csv")
    assert chosen.pop("train_files") == "reviews.csv"
    assert chosen == named
    assert chosen["tokenizer"] == "train:auto"


def test_options_of_config_files_are_kept(data_of):
    values = {"data": {"name": "text-files", "text_column": "review", "train_files": "other.csv"}}
    Path("run.yaml").write_text(yaml.safe_dump(values))
    data = data_of("--task=mlm", "--config=run.yaml", "--data=reviews.csv")
    assert (data["text_column"], data["train_files"]) == ("review", "reviews.csv")
    Path("run.yaml").write_text(yaml.safe_dump({"data": "reviews.csv"}))
    assert data_of("--task=mlm", "--config=run.yaml")["train_files"] == "reviews.csv"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--task=optical-flow", "--data=my songs"],
            "--data=my songs: several data modules read it (write --data=flying-chairs '--data.path=my songs' or ",
        ),
        (
            ["--task=image-classification", "--data=reviews.csv"],
            "--data=reviews.csv: no data module of task 'image-classification' and its model reads it "
            "(image-folder reads folders, .zip)",
        ),
        (["--task=mlm", "--data=notes.tsv"], "--data=notes.tsv: not found (relative to "),
        (["--task=mlm", "--data=other/texts"], "--data=other/texts: not found (relative to "),
        (["--task=mlm", "--data=*.text"], "--data=*.text: not found (relative to "),
        (["--task=mlm", "--data=~/no-such.txt"], "--data=~/no-such.txt: not found (relative to "),
        (
            ["--task=mlm", "--config=both.yaml"],
            "--config=both.yaml, line 1: data=notes.txt and --data.train_files: both name the data (give one",
        ),
        (
            ["--task=mlm", "--data=notes.txt", "--data.train_files=other.txt"],
            "--data=notes.txt and --data.train_files: both name the data (give one of the two)",
        ),
    ],
)
def test_missing_or_ambiguous_path_is_refused(perceiver, flags, message):
    assert perceiver("fit", *flags).error.startswith(message)


def test_evaluation_refuses_a_path(perceiver, trained):
    error = perceiver("test", f"--ckpt_path={trained.last}", "--data=notes.txt").error
    assert error == "--data: notes.txt is a path, which only fit accepts (example: --data.test_files=notes.txt)"


@pytest.mark.slow
def test_run_trains_and_resumes_on_other_data(perceiver, small, texts):
    flags = [flag for flag in small if not flag.startswith("--data")]
    options = ["--data.max_seq_len=32", "--data.batch_size=2", "--data.val_fraction=0.2"]
    result = perceiver("fit", *flags, f"--data={texts / 'train.txt'}", *options, "--trainer.max_steps=2")
    assert result.code == 0, result.err
    saved = yaml.safe_load(Path("logs/mlm/version_0/config.yaml").read_text())["data"]
    assert (saved["name"], saved["train_files"]) == ("text-files", str(texts / "train.txt"))
    result = perceiver("fit", "--ckpt_path=last", f"--data={texts / 'test.txt'}", "--trainer.max_steps=4")
    assert result.code == 0, result.err
    saved = yaml.safe_load(Path("logs/mlm/version_0/config.yaml").read_text())["data"]
    assert (saved["train_files"], saved["max_seq_len"]) == (str(texts / "test.txt"), 32)
