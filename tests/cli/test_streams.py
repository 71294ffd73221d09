"""Output in encodings that lack some of its characters."""

from __future__ import annotations

import io
import json

import pytest

from perceiver_cli.main import main
from perceiver_cli.output import escaped_output


@pytest.fixture
def written(monkeypatch):
    """Text written to standard output in an encoding."""

    def written(encoding: str, write) -> bytes:
        buffer = io.BytesIO()
        stream = io.TextIOWrapper(buffer, encoding=encoding)
        monkeypatch.setattr("sys.stdout", stream)
        write()
        stream.flush()
        return buffer.getvalue()

    return written


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_json_stays_valid(written, encoding):
    text = "näh ▒ 🎉 \udc80"

    def write():
        with escaped_output():
            print(json.dumps(text, ensure_ascii=False))

    assert json.loads(written(encoding, write).decode(encoding)) == text


@pytest.mark.parametrize("command", [["--help"], ["list-tasks"], ["list-models"], ["fit", "--task=mlm", "--help"]])
def test_commands_print_in_any_encoding(written, command):
    assert written("ascii", lambda: main(command))


def test_training_prints_in_ascii(written, small):
    codes = []
    out = written("ascii", lambda: codes.append(main(["fit", *small, "--trainer.max_steps=5"])))
    assert codes == [0]
    assert b"\\u2592" in out, "samples of masked text"
