"""Output of the command: no control sequences on any path, and predictions in files."""

from __future__ import annotations

import csv
import datetime
import errno
import io
import json
import os
import re
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from perceiver_cli.checkpoint_files import lock
from perceiver_cli.main import main
from perceiver_cli.output import EscapingStream, escaped_output
from perceiver_cli.predictions import choose_output
from perceiver_plugins.sdk.prediction.predictor import class_record, class_row
from perceiver_plugins.sdk.prediction.table_inputs import TableRow
from perceiver_registry import UserError

HOSTILE = "\x1b[31m\x1b]0;title\x07\x9b2J\u202e"


def is_clean(text: str) -> bool:
    """Return whether a text has no control characters."""
    controls = [c for c in text if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    return not controls and "\u202e" not in text


class Stream(io.StringIO):
    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self) -> bool:
        return self.is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_all_text_is_escaped(is_terminal):
    below = Stream(is_terminal)
    stream = EscapingStream(below)
    print(f"label {HOSTILE}", "good\rbad", "b", sep="\n", file=stream)
    stream.writelines(["x\x1b[A\n"])
    assert below.getvalue() == (
        "label \\u001b[31m\\u001b]0;title\\u0007\\u009b2J\\u202e\ngood\\u000dbad\nb\nx\\u001b[A\n"
    )
    assert stream.isatty() is is_terminal


def test_progress_bars_move_the_cursor():
    terminal, pipe = Stream(True), Stream(False)
    for below in (terminal, pipe):
        stream = EscapingStream(below)
        stream.write("\rloss 1 \x1b[31m")
        stream.write("\n\x1b[A\x1b[A")
    assert terminal.getvalue() == "\rloss 1 \\u001b[31m\n\x1b[A\x1b[A"
    assert pipe.getvalue() == "\rloss 1 \\u001b[31m\n\\u001b[A\\u001b[A"
    Console(file=EscapingStream(terminal), force_terminal=True).print("[red]bar")
    assert terminal.getvalue().endswith("\x1b[31mbar\x1b[0m\n")


def test_streams_are_restored(capsys):
    before = sys.stdout, sys.stderr
    with escaped_output():
        print(HOSTILE)
        print(HOSTILE, file=sys.stderr)
    with pytest.raises(ZeroDivisionError), escaped_output():
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
    out, err = capsys.readouterr()
    assert is_clean(out)
    assert out == err


@pytest.fixture(scope="module")
def evil_plugin(tmp_path_factory) -> Path:
    """Plugin with control characters in its texts."""
    file = tmp_path_factory.mktemp("plugin") / "evil.py"
    file.write_text(
        "from perceiver_registry import DataSpec, hookimpl\n"
        f"HOSTILE = {HOSTILE!r}\n"
        "print(HOSTILE)\n"
        "class Data:\n"
        "    def __init__(self, option: str = HOSTILE):\n"
        "        pass\n"
        "@hookimpl\n"
        "def perceiver_data():\n"
        "    yield DataSpec('evil', 'evil:Data', ('*',), f'data {HOSTILE} of a third party')\n"
    )
    return file


@pytest.mark.parametrize(
    "argv",
    [
        ["list-data", "evil"],
        ["list-data", "evil", "--format=json"],
        ["plugins", "evil*"],
        ["describe", "evil"],
        ["describe", f"no{HOSTILE}thing"],
        [f"no{HOSTILE}command"],
        ["fit", f"--task={HOSTILE}"],
        ["fit", "--task=mlm", f"--config=a{HOSTILE}\n.yaml"],
        ["fit", "--task=mlm", f"--{HOSTILE}=1"],
        ["fit", "--task=mlm", "--data=text-files", f"--data.train_files=a{HOSTILE}\n.txt"],
        ["predict", f"--ckpt_path=a{HOSTILE}\n.ckpt", "x"],
        ["convert", f"a{HOSTILE}\n.ckpt", "x"],
    ],
    ids=lambda argv: "-".join(word for word in argv if word.isprintable()),
)
def test_control_characters_in_names_are_escaped(perceiver, evil_plugin, argv):
    result = perceiver(*argv, f"--plugin={evil_plugin}")
    assert is_clean(result.out + result.err)
    if result.code:
        assert len(result.err.splitlines()) <= 2  # output of the plugin's import, and the error
    if "--format=json" in argv:
        (facts,) = json.loads(result.out)
        assert facts["summary"] == f"data {HOSTILE} of a third party"


@pytest.fixture(scope="module")
def evil_run(train, tmp_path_factory):
    """Classifier with control characters in its labels and texts."""
    file = tmp_path_factory.mktemp("evil") / "train.jsonl"
    rows = [
        {"text": f"{label} {HOSTILE} {number}", "label": f"{label}{HOSTILE}"} for number in range(8) for label in "ab"
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    data = ["--data=text-files", f"--data.train_files={file}", "--data.max_seq_len=32", "--data.batch_size=8"]
    size = ["--model.encoder.num_input_channels=16", "--model.decoder.num_output_query_channels=16"]
    return train("--task=text-classification", *data, *size, "--trainer.max_steps=1")


@pytest.mark.parametrize("form", ["table", "csv", "json", "jsonl"])
def test_control_characters_in_predictions_are_escaped(perceiver, evil_run, form, tmp_path):
    (tmp_path / f"x{HOSTILE}.txt").write_text("good")
    result = perceiver(
        "predict", f"--ckpt_path={evil_run.last}", f"a\n{HOSTILE}", f"x{HOSTILE}.txt", "no\x9b\u202e.txt",
        f"--format={form}", "--attention=pages",
    )  # fmt: skip
    assert result.code == 1
    assert is_clean(result.out + result.err)
    (line,) = result.err.splitlines()
    assert "file no\\u009b\\u202e.txt not found" in line
    pages = [file.read_text() for file in (tmp_path / "pages").iterdir()]
    assert len(pages) == 2
    assert all(map(is_clean, pages))
    if form in ("json", "jsonl"):
        found = json.loads(result.out) if form == "json" else [*map(json.loads, result.out.splitlines())]
        assert [each["input"] for each in found] == [f"a\n{HOSTILE}", f"x{HOSTILE}.txt"]
        assert all(each["label"] in (f"a{HOSTILE}", f"b{HOSTILE}") for each in found)
    assert is_clean(evil_run.result.out + evil_run.result.err)


def test_predictions_survive_other_encodings(evil_run, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    argv = ["predict", f"--ckpt_path={evil_run.last}", "näh 日本 😀", "missing-é.txt", "--format=json"]
    assert main(argv) == 1
    assert json.loads(out.buffer.getvalue().decode("ascii"))[0]["input"] == "näh 日本 😀"
    assert "missing-\\u00e9.txt" in err.buffer.getvalue().decode("ascii")


# Files


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.jsonl", "P.JSON"])
def test_predictions_are_written_to_a_file(perceiver, text_classifier, tmp_path, name):
    form = name.lower().partition(".")[2]
    predict = ["predict", f"--ckpt_path={text_classifier.last}", "gut", "schlecht é"]
    result = perceiver(*predict, f"--output={name}")
    assert (result.code, result.out, result.err) == (0, "", "")
    assert os.listdir() == [name]
    assert Path(name).read_text(encoding="utf-8") == perceiver(*predict, f"--format={form}").out
    Path(name).write_text("old")
    refused = perceiver(*predict, f"--output={name}").error
    assert refused == f"--output={name}: already exists (--overwrite replaces it)"
    assert Path(name).read_text() == "old"
    assert perceiver(*predict, f"--output={name}", "--overwrite").code == 0
    assert len(Path(name).read_text()) > 50


@pytest.mark.slow
def test_output_file_is_written_atomically(perceiver, text_classifier, tmp_path):
    predict = ["predict", f"--ckpt_path={text_classifier.last}", "--output=p.csv", "--batch_size=1"]
    assert perceiver(*predict, "gut", "missing.txt").code == 1  # other predictions are written
    assert [row["input"] for row in csv.DictReader(Path("p.csv").read_text().splitlines())] == ["gut"]
    Path("p.csv").unlink()
    (tmp_path / "lines").write_bytes(b"gut gut gut gut gut gut gut\n" * 430 + b"\xff\n")  # over 8 KiB, a block
    result = perceiver(*predict, "--input=lines")
    assert result.code == 2
    assert "not UTF-8 text" in result.err.splitlines()[-1]  # after lines of progress on a slow machine
    assert os.listdir() == ["lines"]


def test_partial_files_of_killed_runs_are_removed(perceiver, text_classifier, tmp_path):
    for name in (".p.csv.0a1b2c3d.partial", ".p.csv.mine.partial", ".p.json.0a1b2c3d.partial"):
        (tmp_path / name).touch()
    with (tmp_path / ".p.csv.99999999.partial").open("wb") as running:
        lock(running)
        assert perceiver("predict", f"--ckpt_path={text_classifier.last}", "gut", "--output=p.csv").code == 0
    kept = {".p.csv.99999999.partial", ".p.csv.mine.partial", ".p.json.0a1b2c3d.partial", "p.csv"}
    assert {*os.listdir()} == kept


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.jsonl", "p.parquet"])
def test_output_file_is_kept_if_all_inputs_fail(perceiver, text_classifier, name):
    predict = ["predict", f"--ckpt_path={text_classifier.last}", f"--output={name}", "missing.txt"]
    assert perceiver(*predict).code == 1
    assert os.listdir() == []
    Path(name).write_text("old")
    assert perceiver(*predict, "--overwrite").code == 1
    assert Path(name).read_text() == "old"


@pytest.mark.parametrize(
    ("output", "form", "message"),
    [
        ("p.txt", None, "unknown suffix (use .csv, .json, .jsonl, .parquet, or add --format)"),
        ("p.csv", "json", "suffix does not match --format=json"),
        ("p.csv", "table", "tables are not files (use --format=csv"),
        ("no/p.csv", None, "its folder does not exist"),
        ("folder.csv", None, "is a folder"),
    ],
)
def test_wrong_output_is_reported(output, form, message, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UserError) as error:
        choose_output(output, form, False, takes_folder=False)
    assert str(error.value).startswith(f"--output={output}: {message}")


def test_files_that_cannot_be_replaced_or_created_are_refused(tmp_path):
    os.mkfifo("pipe")
    Path("link.csv").symlink_to("pipe")
    messages = {
        "pipe": "is a device or a pipe (give the name of a file)",
        f"{'v' * 300}.csv": "cannot be created (File name too long)",
    }
    for overwrite in (False, True):
        for output, message in messages.items():
            with pytest.raises(UserError) as error:
                choose_output(output, "csv", overwrite)
            assert str(error.value).startswith(f"--output={output}: {message}")
    assert choose_output("link.csv", None, True)[0].file == Path("link.csv")  # a link is replaced
    assert {*os.listdir()} == {"pipe", "link.csv"}


def test_folders_that_cannot_be_written_are_refused(monkeypatch):
    """A read-only file system is simulated, as root writes to folders of any mode."""

    def refuse(path, flags, *mode, **options):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"^--output=p.csv: its folder cannot be written \(Read-only file system\)$"):
        choose_output("p.csv", None, False)


@pytest.mark.parametrize("command", ["predict", "embed"])
@pytest.mark.parametrize(
    ("inputs", "output"),
    [
        (["gut", "in.jsonl"], "in.jsonl"),
        (["--input=in.jsonl"], "./folder/../in.jsonl"),
        (["link.jsonl"], "in.jsonl"),
        (["in.jsonl"], "link.jsonl"),
        (["in.jsonl"], "hard.csv"),
    ],
)
def test_inputs_are_not_replaced(perceiver, text_classifier, tmp_path, command, inputs, output):
    (tmp_path / "folder").mkdir()
    file = tmp_path / "in.jsonl"
    file.write_text('{"text": "gut"}\n')
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    os.link(file, "hard.csv")
    flags = [f"--ckpt_path={text_classifier.last}", f"--output={output}", "--overwrite"]
    line = perceiver(command, *flags, *inputs).error
    assert line == f"--output={Path(output)}: is also an input (give another file)"
    assert file.read_text() == '{"text": "gut"}\n'


@pytest.mark.parametrize(
    ("output", "form", "takes_folder", "chosen"),
    [
        (None, None, False, ("table", None, None)),
        (None, "csv", True, ("csv", None, None)),
        ("p.csv", None, False, ("csv", "p.csv", None)),
        ("p.txt", "jsonl", False, ("jsonl", "p.txt", None)),
        ("flow", None, True, ("table", None, "flow")),
        ("flow", "json", True, ("json", None, "flow")),
        ("p.json", None, True, ("json", "p.json", None)),
        ("folder.csv", None, True, ("table", None, "folder.csv")),
    ],
)
def test_output_is_chosen_by_flags(output, form, takes_folder, chosen, tmp_path):
    (tmp_path / "folder.csv").mkdir()
    found, folder = choose_output(output, form, False, takes_folder)
    assert (found.form, found.file and str(found.file), folder) == chosen


class MultiLabelRows:
    """Conversion of the predictions of a multi-label model, whose rows have other names than its predictions."""

    rows = staticmethod(lambda predictions: map(class_row, predictions))
    records = staticmethod(lambda predictions: map(class_record, predictions))


@pytest.mark.parametrize("form", ["csv", "json", "jsonl", "table"])
def test_kept_columns_have_names_and_lists_of_their_own(form, capsys):
    row = {"label": "gold", "probability": 1, "tags": ["ü", datetime.date(2024, 1, 2)], "input": None}
    source = TableRow("rows.jsonl:1", ("rows.jsonl, line 1", row))
    best = [{"label": "rain", "probability": 0.75}]
    prediction = {"input": source, "labels": best, "top": best}
    output, _ = choose_output(None, form, False, False)
    with replace(output, kept=tuple(row)).opened() as write:
        write(MultiLabelRows(), iter([prediction]))
    out = capsys.readouterr().out
    if form.startswith("json"):
        expected = {**row, "input (input)": None, **prediction, "tags": ["ü", "2024-01-02"]}
        assert json.loads(out) == (expected if form == "jsonl" else [expected])
        return
    read = csv.reader if form == "csv" else lambda lines: [re.split("  +", line.strip()) for line in lines]
    titles, cells = read(out.splitlines())
    names = ["label (input)", "probability (input)", "tags", "input (input)"]
    assert titles == [*names, "input", "labels", "label", "probability"]
    probability = {"csv": "0.75", "table": "0.7500"}[form]
    null = {"csv": "", "table": "None"}[form]
    assert cells == ["gold", "1", '["ü", "2024-01-02"]', null, "rows.jsonl:1", "rain", "rain", probability]


@pytest.mark.slow
def test_note_is_left_out_of_merged_streams(evil_run, perceiver, tmp_path, monkeypatch):
    folder = evil_run.last.parents[4]
    argv = ["predict", "--ckpt_path=last", "--format=json", "a text"]
    monkeypatch.chdir(folder)
    with (tmp_path / "merged.json").open("w+") as merged, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", merged)
        patch.setattr(sys, "stderr", merged)
        assert main(argv) == 0
        merged.seek(0)
        assert json.load(merged)[0]["input"] == "a text"
    result = perceiver(*argv)
    assert json.loads(result.out)[0]["input"] == "a text"
    assert "predicting with logs" in result.err
