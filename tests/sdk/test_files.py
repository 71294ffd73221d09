"""Search and reading of the user's files."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perceiver_plugins.sdk.data import files
from perceiver_plugins.sdk.data.files import file_format, find_files, read_documents, read_rows, text_of
from perceiver_plugins.sdk.errors import DataError

TEXTS = ["First, naïve\nsecond line", "日本語 😀", 'quotes " and, commas']


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
    ".zst": zstd,
}


def content(kind: str) -> bytes:
    if kind == ".jsonl":
        return "\n".join(json.dumps({"text": text, "n": 1}) for text in [*TEXTS, ""]).encode()
    if kind == ".json":
        return json.dumps([{"text": text} for text in [*TEXTS, None]], indent=1, ensure_ascii=False).encode()
    if kind in (".csv", ".tsv"):
        delimiter = "," if kind == ".csv" else "\t"
        rows = ['"' + text.replace('"', '""') + '"' for text in TEXTS]
        return "\r\n".join([f"n{delimiter}text", *(f"1{delimiter}{row}" for row in rows)]).encode("utf-8-sig")
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": [*TEXTS, None], "n": range(4)}), sink)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("kind", "compression"),
    [(".jsonl", ".gz"), (".json", ".xz"), (".csv", ".bz2"), (".tsv", ""), (".parquet", ""), (".parquet", ".zst")],
)
def test_rows_of_each_format(kind: str, compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"some.name{kind}{compression}"
    path.write_bytes(COMPRESS[compression](content(kind)))
    assert [piece.text for piece in read_documents(path)] == TEXTS


@pytest.mark.parametrize("compression", COMPRESS)
def test_text_file_is_one_document(compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"book.txt{compression}"
    path.write_bytes(COMPRESS[compression]("\ufeffZeile eins\r\nZeile zwei: é 😀".encode()))
    assert list(read_documents(path)) == [("Zeile eins\nZeile zwei: é 😀", True, True)]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
@pytest.mark.parametrize(
    "text",
    ["naïve 😀 日本語\n\nzwei\r\n", "ohneleerzeichen😀" * 20, "a", "ends here\n", "\n\nx", "a\rb\r\nc\r"],
)
def test_text_is_read_in_blocks(text: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode())
    pieces = list(read_documents(path))
    assert "".join(piece.text for piece in pieces) == text.replace("\r\n", "\n").replace("\r", "\n")
    assert [piece.first for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_pieces_end_between_words(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some words " * 20000)
    pieces = list(read_documents(path))
    assert len(pieces) > 2
    assert all(piece.text.endswith(" ") and len(piece.text) < 2 * files.BLOCK for piece in pieces)


def test_find_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.txt", "a.jsonl.gz", "sub/c.csv", "notes.md", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    names = lambda found: [path.name for path in found]  # noqa: E731
    assert names(find_files(str(tmp_path), "f")) == ["a.jsonl.gz", "b.txt", "c.csv"]
    assert names(find_files(str(tmp_path / "*.txt"), "f")) == ["b.txt"]
    assert names(find_files(str(tmp_path / "**/*.csv"), "f")) == ["c.csv"]
    assert names(find_files([str(tmp_path / "notes.md"), str(tmp_path / "b.txt")], "f")) == ["notes.md", "b.txt"]
    monkeypatch.setenv("HOME", str(tmp_path))
    assert names(find_files("~/b.txt", "f")) == ["b.txt"]
    assert file_format(Path("A.B.JSONL.GZ")) == (".jsonl", ".gz")
    assert file_format(Path("Makefile")) == (".txt", "")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", ": no text"),
        ("a.txt", b" \n\n", ": no text"),
        ("a.jsonl", b'{"text": ""}\n', ": no text"),
        ("a.csv", b"text\n", ": no text"),
        ("a.parquet", b"", ": no text"),
        ("a.txt", b"abc\0def", "binary file .zero byte at byte 3."),
        ("a.jsonl", b"\0\1\2", "binary file"),
        ("a.txt", "hé".encode("utf-16"), "UTF-16 text, expected UTF-8"),
        ("a.txt", "hé".encode("utf-32"), "UTF-32 text, expected UTF-8"),
        ("a.txt", b"abc \xe9t\xe9", "not UTF-8 text: invalid byte 0xe9 at byte 4"),
        ("a.txt", b"\xef\xbb\xbfab\xff", "invalid byte 0xff at byte 5"),
        ("a.txt", b"abc\xe2\x82", r"invalid byte 0xe2 at byte 3 \(the end\)"),
        ("a.csv", b"text\nok\n\xe9\n", "invalid byte 0xe9 in line 3, at its byte 1"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}', r"line 2: no column 'text'; .* one of: body"),
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "line 2: not JSON"),
        ("a.jsonl", b'{"text": 3}', "line 1: 'text' must be text, got a whole number"),
        ("a.jsonl", b'"just text"', "line 1: expected an object"),
        ("a.jsonl", b'{"text": "\\ud800"}', "surrogate"),
        ("a.csv", b"title,body\n1,2\n", r"no column 'text'; .* one of: title, body"),
        ("a.csv", b"title,body\n", r"no column 'text'"),
        ("a.parquet", b"PAR1 no more", "not a Parquet file"),
        ("a.txt.gz", b"no gzip", "damaged"),
        ("a.txt.gz", gzip.compress(b"some text " * 1000, mtime=0)[:-20], "damaged or truncated"),
        ("a.txt.xz", lzma.compress(b"some text")[:-20], "damaged or truncated"),
        ("a.txt.bz2", b"BZh9 no", "cannot be read|damaged"),
        ("a.txt.zst", b"no zstd", "cannot be read|damaged"),
    ],
)
def test_invalid_documents_are_reported(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        list(read_documents(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_byte_after_the_first_block(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("é".encode() * 40000 + b"\xff")
    with pytest.raises(DataError, match="0xff at byte 80000"):
        list(read_documents(path))


def test_missing_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("x")
    for name, message in {
        "corpos.txt": "flag: file .* not found .*did you mean 'corpus.txt'",
        "*.csv": "flag: no file matches",
        "no/where.txt": "flag: file .* not found",
    }.items():
        with pytest.raises(DataError, match=message):
            find_files(str(tmp_path / name), "flag")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.txt.* in the folder"):
        find_files(str(tmp_path / "empty"), "flag")
    with pytest.raises(DataError, match="no file given"):
        find_files([], "flag")


# rows


@pytest.mark.parametrize(
    ("kind", "compression"),
    [(".jsonl", ""), (".json", ".bz2"), (".csv", ".zst"), (".tsv", ".xz"), (".parquet", ".gz"), (".parquet", "")],
)
def test_rows_have_columns_and_locations(kind: str, compression: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{kind}{compression}"
    path.write_bytes(COMPRESS[compression](content(kind)))
    rows = list(read_rows(path, {"text": "text_column"}))
    assert [row["text"] for _, row in rows][:3] == TEXTS
    assert all(location.startswith(f"{path}, ") for location, _ in rows)
    last = {".jsonl": "line 4", ".json": "item 4", ".csv": "line 5", ".tsv": "line 5", ".parquet": "row 4"}
    assert rows[-1][0] == f"{path}, {last[kind]}"


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_all_columns_are_read_by_default(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"table{kind}"
    path.write_bytes(content(kind))
    assert next(set(row) for _, row in read_rows(path, {})) == {"text", "n"}


def test_values_of_rows(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": [1, null], "b": {"c": true}, "more": 1}\n')
    (tmp_path / "a.csv").write_text("a,b\n1,\n2,x\n")
    table = pa.table({"a": [["x", "y"]], "b": [1.5], "more": [0]})
    pq.write_table(table, tmp_path / "a.parquet")
    columns = {"a": "one_flag", "b": "other_flag"}
    assert [row for _, row in read_rows(tmp_path / "a.jsonl", columns)] == [
        {"a": [1, None], "b": {"c": True}, "more": 1}
    ]
    assert [row for _, row in read_rows(tmp_path / "a.csv", columns)] == [{"a": "1", "b": ""}, {"a": "2", "b": "x"}]
    assert [row for _, row in read_rows(tmp_path / "a.parquet", columns)] == [{"a": ["x", "y"], "b": 1.5}]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"text,labels\nx,1\n", r"a\.csv: no column 'label'; a_flag must be one of: text, labels .*'labels'"),
        ("a.tsv", b"text\tlabels\nx\t1\n", "no column 'label'; a_flag must be one of: text, labels"),
        ("a.jsonl", b'{"label": 1}\n{"text": 1}\n', "line 2: no column 'label'; a_flag must be one of: text$"),
        ("a.json", b'[{"label": 1}, 3]', "item 2: expected an object with 'label', got a whole number"),
        ("a.txt", b"label", r"not a table \(columns are read from .jsonl, .json, .csv"),
        ("a.csv.gz", b"no gzip", "damaged"),
        ("a.csv", b'label\n"a\n', "not a valid table"),
    ],
)
def test_invalid_tables_are_reported(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        list(read_rows(tmp_path / name, {"label": "a_flag"}))
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_of_a_row() -> None:
    assert text_of({"a": "é"}, "a", "here") == "é"
    assert text_of({"a": None}, "a", "here") == ""
    with pytest.raises(DataError, match="here: 'a' must be text, got a list"):
        text_of({"a": ["é"]}, "a", "here")
    with pytest.raises(DataError, match=r"here: .* surrogate"):
        text_of({"a": "\ud800"}, "a", "here")
