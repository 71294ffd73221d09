"""Inputs of ``predict`` in files and on standard input: any number of lines, of any length."""

from __future__ import annotations

import io
import tracemalloc

import pytest

from perceiver_cli import inputs
from perceiver_cli.inputs import MAX_LINE, open_inputs
from perceiver_registry import UserError


def opened(arguments=(), file: str | None = None, long_lines: bool = True) -> list[str]:
    given, lines = open_inputs(list(arguments), file)
    return [*given, *(lines(long_lines) if lines else ())]


@pytest.fixture
def stdin(monkeypatch):
    def stdin(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))

    return stdin


@pytest.mark.parametrize("long_lines", [True, False])
@pytest.mark.parametrize("from_file", [True, False])
@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\n\n  \n b \r\nc", ["a", " b ", "c"]),
        ("\ufeffä\n日本".encode(), ["ä", "日本"]),
        ("one\u2028line\x0b\x85\x1c\n".encode(), ["one\u2028line\x0b\x85\x1c"]),
        (b"a\0b\x1b[31m\n", ["a\0b\x1b[31m"]),
    ],
)
def test_each_line_is_an_input(tmp_path, stdin, content, lines, from_file, long_lines):
    if from_file:
        (tmp_path / "lines").write_bytes(content)
        assert opened(["x"], "lines", long_lines) == ["x", *lines]
    else:
        stdin(content)
        assert opened(["x", "-"], None, long_lines) == ["x", *lines]
        stdin(content)
        assert opened([], None, long_lines) == lines


def test_file_and_standard_input_are_combined(tmp_path, stdin):
    (tmp_path / "lines").write_text("a\n")
    stdin(b"b\n")
    assert opened(["-", "x"], "lines") == ["x", "a", "b"]
    stdin(b"")
    assert opened(["-", "x"], "lines") == ["x", "a"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n\t\n", "the file is empty"),
        (b"good\n\xff\n", r"not UTF-8 text \(byte 5\)"),
        ("wide\n".encode("utf-16"), r"not UTF-8 text \(byte 0\)"),
        (None, "No such file or directory"),
    ],
)
def test_wrong_file_is_reported(tmp_path, content, message):
    if content is not None:
        (tmp_path / "lines").write_bytes(content)
    with pytest.raises(UserError, match=f"^--input=lines: {message}$"):
        opened(file="lines")
    with pytest.raises(UserError, match=r"^--input=\.: Is a directory$"):
        opened(file=".")


def test_wrong_standard_input_is_reported(stdin, monkeypatch):
    stdin(b" \n")
    with pytest.raises(UserError, match="standard input: empty"):
        opened()
    stdin(b"n\xe4h\n")
    with pytest.raises(UserError, match="standard input: not UTF-8 text"):
        opened()
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="no inputs"):
        opened()


@pytest.mark.parametrize("length", [39, 40, 79, 80, 81, 200])
def test_both_ends_of_a_long_line_are_kept(tmp_path, monkeypatch, length):
    monkeypatch.setattr(inputs, "MAX_LINE", 40)
    line = "".join(chr(65 + number % 50) for number in range(length - 1)) + "\n"
    (tmp_path / "lines").write_text(f"first\n{line}last")
    first, found, last = opened(file="lines")
    assert (first, last) == ("first", "last")
    assert found == (line if length <= 80 else line[:40] + line[-40:]).rstrip()
    if length > 80:
        with pytest.raises(UserError, match=r"--input=lines, line 2: longer than 40 characters"):
            opened(file="lines", long_lines=False)
    else:
        assert opened(file="lines", long_lines=False)[1] == found


@pytest.mark.slow
@pytest.mark.parametrize("line", [b"x" * 99 + b"\n", b"x" * 2**20], ids=["many lines", "one line"])
def test_memory_does_not_grow_with_the_file(tmp_path, line):
    with (tmp_path / "lines").open("wb") as file:
        for _ in range(30):
            file.write(line * (2**20 // len(line)))
    tracemalloc.start()
    _, lines = open_inputs([], "lines")
    number = sum(1 for _ in lines(True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == (1 if len(line) == 2**20 else 30 * (2**20 // 100))
    assert peak < 12 * MAX_LINE


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.json", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_table_as_input_file_is_refused(tmp_path, name):
    (tmp_path / name).write_text('{"text": "a", "label": "b"}\n')
    with pytest.raises(UserError, match=r"a table, not a file with one input per line.*give a table as an argument"):
        opened(file=str(tmp_path / name))
