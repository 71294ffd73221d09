"""Rows of tables in all formats, and errors with file and line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perceiver_plugins.sdk.data.files import find_files, find_split_files, read_documents
from perceiver_plugins.sdk.data.left_out import LeftOut
from perceiver_plugins.sdk.data.table_rows import check_delimiter, column_names, read_rows
from perceiver_plugins.sdk.errors import DataError
from perceiver_registry import UserError

COLUMNS = {"text": "text_column", "label": "label_column"}


def error_message(path: Path, data: bytes, columns: dict[str, str] = COLUMNS) -> str:
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        list(read_rows(path, columns))
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"text,label\na,1\nb, and more,2\n", ", line 3: 3 values, more than the 2 columns"),
        ("t.csv", b'text,label\n"a\nb",1\n\nb,c,2\n', ", line 5: 3 values, more than"),
        ("t.csv", b"text,label\na,1\nb\n", ", line 3: 1 values, fewer than the 2 columns"),
        ("t.tsv", b"text\tlabel\na\t1\tx\n", ", line 2: 3 values, more than"),
        ("t.csv", b"text,label,,\na,1,,\nb,c,2,\n", ", line 3: '2' is in a column without a name"),
        ("t.csv", b"text,label,text\na,1,b\n", ": the column 'text' occurs more than once"),
        ("t.csv", b'text,label\na,1\n"b,2\nc,3\n', ", line 3: not a valid table (a quote opened in this row"),
        ("t.csv", b"text,label\na,1\nb\0,2\n", ", line 3: a zero byte"),
        (
            "t.csv",
            "text,label\nä,1\n".encode() + b"\xe9,2\n",
            ": not UTF-8 text: invalid byte 0xe9 in line 3, at its byte 1",
        ),
        (
            "t.csv",
            "text,label\nä".encode() + b"\xe9,2\n",
            ": not UTF-8 text: invalid byte 0xe9 in line 2, at its byte 3",
        ),
        ("t.jsonl", b'{"text": "a", "label": 1}\n{"text": "b"}', ", line 2: no column 'label'"),
        ("t.jsonl", b'{"text": "a", "label": 1, "text": "b"}', ", line 1: the key 'text' occurs more than once"),
        (
            "t.jsonl",
            b'{"text": "a", "label": ' + b"9" * 5000 + b"}",
            ", line 1: an integer has more than 4300 digits",
        ),
        ("t.jsonl", b"\n" + b'{"a":' * 200000, ", line 2: "),
    ],
)
def test_ambiguous_rows_are_rejected_with_their_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    assert error_message(tmp_path / name, data).startswith(message)


def test_duplicate_columns_of_parquet_are_rejected(tmp_path: Path) -> None:
    columns = [pa.array(["a"]), pa.array(["b"]), pa.array([1])]
    pq.write_table(pa.Table.from_arrays(columns, ["text", "text", "label"]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="the column 'text' occurs more than once"):
        list(read_rows(tmp_path / "t.parquet", COLUMNS))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_mixed_line_ends_are_read(tmp_path: Path, end: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(f'\ufefftext,label{end}"a\nb",1\r\n\nc,2\rd,3{end}'.encode())
    rows = [(location.rpartition(", ")[2], dict(row)) for location, row in read_rows(path, COLUMNS)]
    assert [row for _, row in rows] == [
        {"text": "a\nb", "label": "1"},
        {"text": "c", "label": "2"},
        {"text": "d", "label": "3"},
    ]
    assert rows[0][0] == "line 2"


def test_empty_columns_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label,,\na,1,,\n")
    assert [row for _, row in read_rows(tmp_path / "t.csv", COLUMNS)] == [{"text": "a", "label": "1"}]


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiter_is_suggested_and_read(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"text{delimiter}label\na, b{delimiter}1\n")
    with pytest.raises(DataError, match=r"delimiter=.* reads the header as 2 columns"):
        list(read_rows(path, COLUMNS))
    with pytest.raises(DataError, match=r"the header is one column, .*delimiter="):
        column_names(path)
    assert [row for _, row in read_rows(path, COLUMNS, delimiter)] == [{"text": "a, b", "label": "1"}]


def test_delimiters_are_checked() -> None:
    assert [check_delimiter(given) for given in (None, ";", "tab", "\\t", "\t")] == [None, ";", "\t", "\t", "\t"]
    for given in ("", ";;", '"', "\n"):
        with pytest.raises(UserError, match="must be one character"):
            check_delimiter(given)


def test_index_columns_of_pandas_are_recognised(tmp_path: Path) -> None:
    data = pd.DataFrame({"x": [1.0, 2.0, 3.0], "label": [0, 1, 0]})
    data.to_csv(tmp_path / "a.csv")
    pd.read_csv(tmp_path / "a.csv").to_csv(tmp_path / "b.csv", index=False)
    data.iloc[[2, 0, 1]].to_parquet(tmp_path / "c.parquet")
    data.set_index(pd.Index([7, 9, 8], name="patient")).to_parquet(tmp_path / "d.parquet")
    for name, index in {
        "a.csv": "",
        "b.csv": "Unnamed: 0",
        "c.parquet": "__index_level_0__",
        "d.parquet": "patient",
    }.items():
        assert column_names(tmp_path / name) == (["x", "label"], [index])


def test_rows_without_text_are_counted(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\na,1\n,2\nb,1\n,2\n")
    left_out = LeftOut()
    assert [piece.text for piece in read_documents(tmp_path / "t.csv", left_out=left_out)] == ["a", "b"]
    assert left_out.lines("train") == [f"train: 2 of 4 rows left out: no text (first: {tmp_path / 't.csv'}, line 3)"]


def test_zero_byte_in_a_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"a" * 50_000 + b"\0")
    with pytest.raises(DataError, match="zero byte at byte 50000"):
        list(read_documents(tmp_path / "t.txt"))


# Files of a folder or pattern


def test_linked_files_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.csv").write_text("x")
    for name in ("up", "again"):
        (tmp_path / "sub" / name).symlink_to(tmp_path)
    (tmp_path / "sub" / "same.csv").symlink_to(tmp_path / "sub" / "a.csv")
    assert find_files(str(tmp_path), "flag") == [tmp_path / "sub" / "a.csv"]
    assert find_files(str(tmp_path / "**" / "*.csv"), "flag") == [tmp_path / "sub" / "a.csv"]
    with pytest.raises(DataError, match=r"val_files: .*same\.csv is in train_files as well"):
        find_split_files(str(tmp_path / "sub/a.csv"), str(tmp_path / "sub/same.csv"), None)
    with pytest.raises(DataError, match="train_files: missing"):
        find_split_files(None, None, None)


def test_files_of_other_formats_are_counted(tmp_path: Path) -> None:
    for name in ("a.csv", "b.xlsx", "c.md", ".hidden.csv", ".checkpoints/a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.warns(UserWarning, match=r"2 file\(s\) of other formats left out, such as 'b.xlsx'"):
        assert find_files(str(tmp_path), "flag") == [tmp_path / "a.csv"]
