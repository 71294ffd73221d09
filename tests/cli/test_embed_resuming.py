"""Resuming of interrupted runs of ``perceiver embed``, with equal or changed inputs."""

from __future__ import annotations

import json
import os
import stat
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from test_embed import notes, written

from perceiver_cli.journal import Journal, identity_of
from perceiver_core import PerceiverIO
from perceiver_registry import read_model

TEXTS = [f"näht {number} gut" if number % 3 else f"schlecht {number}" for number in range(11)]
BATCHES = 6
"""Number of batches of two texts."""


class EmbeddingCounter:
    """Counter of embedded batches, which interrupts the run at a limit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count, self.limit, self.rejects = 0, 99, lambda batch: False
        embed = PerceiverIO.embed

        def counted(model, batch, pool="mean"):
            if self.count == self.limit:
                raise KeyboardInterrupt
            if self.rejects(batch):
                raise ValueError("refused")
            self.count += 1
            return embed(model, batch, pool)

        monkeypatch.setattr(PerceiverIO, "embed", counted)


@pytest.fixture
def embedded(monkeypatch):
    return EmbeddingCounter(monkeypatch)


@pytest.fixture
def run(text_classifier, perceiver, embedded, tmp_path):
    """Function that embeds texts, up to a limit of batches, and returns the result and the number of batches."""

    def run(*argv: str, limit: int = 99, texts=TEXTS, checkpoint=text_classifier.last):
        (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
        embedded.count, embedded.limit = 0, limit
        result = perceiver("embed", f"--ckpt_path={checkpoint}", "--input=texts.txt", "--batch_size=2", *argv)
        return result, embedded.count

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"texts.txt"}


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("limit", [1, 4])
def test_the_same_command_resumes(run, tmp_path, suffix, limit):
    flag = f"--output=v{suffix}"
    assert run(f"--output=whole{suffix}")[1] == BATCHES
    expected = files(tmp_path)
    result, count = run(flag, limit=limit)
    assert (result.code, count) == (130, limit)
    shown = f"perceiver: v{suffix}: incomplete; the same command resumes (batches recorded: {limit})"
    assert notes(result) == [shown, "perceiver: interrupted"]
    assert files(tmp_path) == {*expected, f".v{suffix}.journal"}
    (tmp_path / f".v{suffix}.0a1b2c3d.partial").touch()  # of a killed process
    result, count = run(flag)
    assert (result.code, count) == (0, BATCHES - limit)
    assert notes(result) == [f"perceiver: v{suffix}: resuming an interrupted run (batches recorded: {limit})"]
    assert (tmp_path / f"v{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert files(tmp_path) == {*expected, *(name.replace("whole", "v") for name in expected)}


def test_latents_are_resumed(run, tmp_path):
    assert run("--pool=none", "--output=whole.npy")[0].code == 0
    assert run("--pool=none", "--output=v.npy", limit=3)[0].code == 130
    result, count = run("--pool=none", "--output=v.npy")
    assert (result.code, count) == (0, BATCHES - 3)
    np.testing.assert_array_equal(np.load("v.npy"), np.load("whole.npy"))


def test_batches_with_changed_inputs_are_computed_again(run, tmp_path):
    """Names come from the inputs, embeddings of unchanged batches from the journal."""
    changed = [*TEXTS[:5], "another text", *TEXTS[6:]]  # in the third batch
    assert run("--output=whole.npy", texts=changed)[1] == BATCHES
    assert run("--output=v.npy", limit=5)[0].code == 130
    result, count = run("--output=v.npy", texts=changed)
    assert (result.code, count) == (0, 2)  # the changed batch and the last one
    assert written(tmp_path / "v.npy")[0] == changed
    np.testing.assert_array_equal(np.load("v.npy"), np.load("whole.npy"))


@pytest.mark.parametrize("change", ["pool", "quantize", "model"])
def test_another_model_or_option_does_not_resume(run, tmp_path, text_classifier, load, change):
    assert run("--output=v.npy", limit=3)[0].code == 130
    flags, checkpoint = {"pool": ["--pool=none"], "quantize": ["--quantize=int8"]}.get(change, []), text_classifier.last
    if change == "model":
        content = load(checkpoint)
        content["state_dict"]["model.encoder.latents"][0, 0] += 1e-3
        torch.save(content, checkpoint := tmp_path / "other.ckpt")
    result, count = run("--output=v.npy", "--trainer.accelerator=cpu", *flags, checkpoint=checkpoint)
    assert (result.code, count) == (0, BATCHES)
    assert "v.npy: an interrupted run had another model or other options: embedding all inputs" in result.err


@pytest.fixture
def interrupted(run, tmp_path):
    """Journal of a run that was interrupted after three batches; ``whole.npy`` has all embeddings."""
    assert run("--output=whole.npy")[0].code == 0
    assert run("--output=v.npy", limit=3)[0].code == 130
    return tmp_path / ".v.npy.journal"


@pytest.fixture
def resumes(run, interrupted):
    """Function that replaces the journal, resumes, and returns the number of reused batches."""

    def resumes(content: bytes) -> int:
        interrupted.write_bytes(content)
        result, count = run("--output=v.npy", "--overwrite")
        assert result.code == 0, result
        np.testing.assert_array_equal(np.load("v.npy"), np.load("whole.npy"))
        assert not interrupted.exists()
        return BATCHES - count

    return resumes


def test_incomplete_and_damaged_journals(interrupted, resumes):
    """Batches that were written in part, or have other numbers, are computed again."""
    content = interrupted.read_bytes()
    header, first = content.index(b"\n") + 1, content.index(b"}\n") + 2
    for damaged, left in (
        (content[:-5], 2),
        (content[:first], 0),
        (content[: header - 3], 0),
        (content[:5], 0),
        (b"", 0),
        (content[:first] + bytes(4) + content[first + 4 :], 2),  # zeros, as after a power failure
        (content[:header] + b"\0" * 99 + content[header:], 0),
    ):
        assert resumes(damaged) == left


@pytest.mark.slow
def test_damaged_and_hostile_records_are_computed_again(interrupted, resumes):
    """Results are right for records of any content that have the key of a batch and a valid checksum."""
    header, line, _ = interrupted.read_bytes().split(b"\n", 2)
    key = json.loads(line)["key"]

    def record(shapes, numbers: bytes = b"", key=key) -> bytes:
        shapes = shapes if isinstance(shapes, str) else json.dumps(shapes)
        line = f'{{"key": {json.dumps(key)}, "shapes": {shapes}, "crc32": {zlib.crc32(numbers)}}}\n'
        return header + b"\n" + line.encode() + numbers

    def numbers(count: int, value: float = 0.5) -> bytes:
        return np.full(count, value, "<f4").tobytes()

    assert resumes(record([[16], [16]], numbers(32, np.nan))) == 0
    for each in (
        record([[2**62]]), record([[2**31 - 1] * 2]), record([[-1], [16]]), record([[-4, -4], [16]], numbers(32)),
        record([[16.0], [16.0]], numbers(32)), record("[[1e400]]"), record(f"[[{'9' * 5000}]]"),
        record("[" * 100_000), record([[True] * 2] * 2, numbers(2)), record("null"), record("{}"), record("[{}]"),
        record([]), record([[]]), record([[16]], numbers(16)), record([[16]] * 3, numbers(48)),
        record([[15], [15]], numbers(30)), record([[1, 16], [1, 16]], numbers(32)), record([[0], [0]]),
        record([[2] * 99], numbers(2)), record([[16], [16]], numbers(32), key=[key]), header + b"\n[]\n",
    ):  # fmt: skip
        assert resumes(each) == 0, each[:200]
    content = record([[16], [16]], numbers(32))  # a valid record: the others fail because of their content
    interrupted.write_bytes(content)
    journal = Journal(interrupted, header.split()[1].decode())
    np.testing.assert_array_equal(journal.find(key), np.full((2, 16), 0.5))
    journal.close()


def test_long_lines_are_not_read_into_memory(interrupted, monkeypatch):
    monkeypatch.setattr("perceiver_cli.journal.MAX_LINE", 100)
    identity = interrupted.read_bytes().split()[1].decode()
    journal = Journal(interrupted, identity)
    assert journal.num_recorded == 0
    journal.close()


def test_failed_command_keeps_the_journal(run, interrupted):
    before = interrupted.read_bytes()
    for flag in ("--input=missing", "--similar_to=missing.txt", "--pool=none"):
        result, _ = run("--output=v.npy", flag, texts=["missing.txt"])
        assert result.code != 0
        assert interrupted.read_bytes() == before
    assert run("--output=v.npy")[1] == BATCHES - 3


@pytest.mark.parametrize("kind", ["link", "dangling", "folder", "fifo", "text", "device"])
def test_files_that_are_not_journals_are_refused(run, tmp_path, kind):
    path, target = tmp_path / ".v.npy.journal", tmp_path / "target"
    target.write_text("mine")
    if kind == "device":
        if os.geteuid() != 0:
            pytest.skip("needs root")
        try:
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # null
            path.open("rb").close()
        except OSError:
            pytest.skip("no devices in this file system")
    else:
        {
            "link": lambda: path.symlink_to(target),
            "dangling": lambda: path.symlink_to("missing"),
            "folder": path.mkdir,
            "fifo": lambda: os.mkfifo(path),
            "text": lambda: path.write_text("mine"),
        }[kind]()
    before = path.lstat()
    result, count = run("--output=v.npy")
    assert (result.code, count) == (2, 0)
    message = "not a journal of perceiver embed, which needs this name (move it elsewhere)"
    assert result.err == f"perceiver: .v.npy.journal: {message}\n"
    assert (path.lstat().st_mode, path.lstat().st_size) == (before.st_mode, before.st_size)
    assert target.read_text() == "mine"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize(("name", "num_bytes"), [("v.npy", 500), ("v.parquet", 500), ("v.jsonl", 500), ("v.npy", 250)])
def test_full_disks_are_reported_with_the_file(run, tmp_path, name, num_bytes):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        result, _ = run(f"--output={name}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.code == 1
    assert f"the run failed: .{name}.journal: File too large" in result.err
    assert files(tmp_path) == ({f".{name}.journal"} if num_bytes > 250 else set())  # with the first batches
    assert (run(f"--output={name}")[1] < BATCHES) == (num_bytes > 250)


@pytest.mark.parametrize("name", [f"{'v' * 241}.csv", f"{'é' * 119}.jsonl", "v" * 255])
def test_names_may_be_long(run, tmp_path, name):
    form = () if "." in name else ("--format=csv",)
    assert run(f"--output={name}", *form, limit=3)[0].code == 130
    assert run(f"--output={name}", *form)[1] == BATCHES - 3
    assert files(tmp_path) == {name}


def test_no_journal_is_left_without_results(run, tmp_path):
    assert run("--output=v.npy", limit=0)[0].code == 130
    assert files(tmp_path) == set()
    assert run(limit=2)[0].code == 130  # printed
    assert files(tmp_path) == set()


def test_failed_inputs_are_reported_after_resuming(run, tmp_path):
    texts = [*TEXTS[:2], "missing.txt", *TEXTS[2:]]
    assert run("--output=v.npy", limit=4, texts=texts)[0].code == 130
    result, count = run("--output=v.npy", texts=texts)
    assert (result.code, count) == (1, BATCHES - 4)
    assert "missing.txt not found" in result.err
    assert written(tmp_path / "v.npy")[0] == TEXTS


def test_batches_that_were_embedded_input_by_input_are_resumed(run, embedded, tmp_path):
    """The model refuses the second batch, and its first input alone."""
    seen = []
    embedded.rejects = seen.append
    assert run("--output=whole.npy")[1] == BATCHES
    first, *_ = (ids[mask.bool()] for ids, mask in zip(seen[1]["input_ids"], seen[1]["attention_mask"], strict=True))

    def rejects(batch):
        """Return whether a batch is the second one, or its first input alone."""
        ids = batch["input_ids"][0][batch["attention_mask"][0].bool()]
        return torch.equal(ids, first)

    embedded.rejects = rejects
    result, count = run("--output=v.npy", limit=4)
    assert (result.code, count) == (130, 4)  # the first batch, an input of the second, and two batches
    result, count = run("--output=v.npy")
    assert count == 2
    assert result.code == 1
    assert "näht 2 gut: the model does not support this input (refused)" in result.err
    np.testing.assert_allclose(np.load("v.npy"), np.delete(np.load("whole.npy"), 2, axis=0), atol=1e-6)


def test_two_runs_do_not_write_one_journal(run, tmp_path):
    other = Journal(tmp_path / ".v.npy.journal", "identity")
    assert "another run is writing the same output" in run("--output=v.npy")[0].error
    other.close()


def test_identity_depends_on_every_weight(text_classifier):
    model, _ = read_model(str(text_classifier.last))
    identity = identity_of(model, {"pool": "mean"})
    assert identity_of(model, {"pool": "mean"}) == identity
    assert identity_of(model, {"pool": "none"}) != identity
    with torch.no_grad():
        next(model.parameters()).view(-1)[-1] += 1e-3
    assert identity_of(model, {"pool": "mean"}) != identity
