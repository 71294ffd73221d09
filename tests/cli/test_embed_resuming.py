"""Interrupted runs of ``perceiver embed``: the same command resumes them, and computes what has changed."""

from __future__ import annotations

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
"""Batches of two texts."""


class Embedded:
    """Counts the batches that a model embeds, and interrupts it."""

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
    return Embedded(monkeypatch)


@pytest.fixture
def run(text_classifier, perceiver, embedded, tmp_path):
    """Return a function that embeds texts, up to a number of batches, and returns the result and the batches."""

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
    shown = f"perceiver: v{suffix}: incomplete; the same command resumes (batches done: {limit})"
    assert notes(result) == [shown, "perceiver: interrupted"]
    assert files(tmp_path) == {*expected, f".v{suffix}.journal"}
    (tmp_path / f".v{suffix}.0a1b2c3d.partial").touch()  # of a killed process
    result, count = run(flag)
    assert (result.code, count) == (0, BATCHES - limit)
    assert notes(result) == [f"perceiver: v{suffix}: resuming an interrupted run (batches done: {limit})"]
    assert (tmp_path / f"v{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    assert files(tmp_path) == {*expected, *(name.replace("whole", "v") for name in expected)}


def test_latents_are_resumed(run, tmp_path):
    assert run("--pool=none", "--output=whole.npy")[0].code == 0
    assert run("--pool=none", "--output=v.npy", limit=3)[0].code == 130
    result, count = run("--pool=none", "--output=v.npy")
    assert (result.code, count) == (0, BATCHES - 3)
    np.testing.assert_array_equal(np.load("v.npy"), np.load("whole.npy"))


def test_other_inputs_are_embedded_anew_from_the_first_change(run, tmp_path):
    """Names are taken from the inputs, embeddings from the journal as long as the batches are the same."""
    changed = [*TEXTS[:5], "another text", *TEXTS[6:]]  # in the third batch
    assert run("--output=whole.npy", texts=changed)[1] == BATCHES
    assert run("--output=v.npy", limit=5)[0].code == 130
    result, count = run("--output=v.npy", texts=changed)
    assert (result.code, count) == (0, BATCHES - 2)
    assert written(tmp_path / "v.npy")[0] == changed
    np.testing.assert_array_equal(np.load("v.npy"), np.load("whole.npy"))


@pytest.mark.parametrize("change", ["pool", "quantize", "model"])
def test_another_model_or_option_starts_anew(run, tmp_path, text_classifier, load, change):
    assert run("--output=v.npy", limit=3)[0].code == 130
    flags, checkpoint = {"pool": ["--pool=none"], "quantize": ["--quantize=int8"]}.get(change, []), text_classifier.last
    if change == "model":
        content = load(checkpoint)
        content["state_dict"]["model.encoder.latents"][0, 0] += 1e-3
        torch.save(content, checkpoint := tmp_path / "other.ckpt")
    result, count = run("--output=v.npy", "--trainer.accelerator=cpu", *flags, checkpoint=checkpoint)
    assert (result.code, count) == (0, BATCHES)
    assert "v.npy: an interrupted run had another model or other options: embedding all inputs" in result.err


def test_incomplete_and_damaged_journals(run, tmp_path):
    """A batch that was written in part is computed again, and so is all after a damaged one."""
    assert run("--output=whole.npy")[0].code == 0
    path = tmp_path / ".v.npy.journal"
    for damage, left in ((lambda data: data[:-5], 2), (lambda data: data[:70], 0), (lambda data: b"", 0)):
        assert run("--output=v.npy", "--overwrite", limit=3)[0].code == 130
        path.write_bytes(damage(path.read_bytes()))
        result, count = run("--output=v.npy", "--overwrite")
        assert (result.code, count) == (0, BATCHES - left)
        np.testing.assert_array_equal(np.load("v.npy"), np.load("whole.npy"))


def test_no_journal_is_left_without_results(run, tmp_path):
    assert run("--output=v.npy", limit=0)[0].code == 130
    assert files(tmp_path) == set()
    assert run(limit=2)[0].code == 130  # printed
    assert files(tmp_path) == set()


def test_journal_that_cannot_be_written_is_reported_as_the_output(run, tmp_path):
    (tmp_path / ".v.npy.journal").mkdir()
    result, count = run("--output=v.npy")
    assert (result.code, count) == (1, 0)
    assert result.err == "perceiver: the run failed: v.npy: Is a directory (--debug shows more)\n"


def test_failed_inputs_are_reported_after_resuming(run, tmp_path):
    texts = [*TEXTS[:2], "missing.txt", *TEXTS[2:]]
    assert run("--output=v.npy", limit=4, texts=texts)[0].code == 130
    result, count = run("--output=v.npy", texts=texts)
    assert (result.code, count) == (1, BATCHES - 4)
    assert "missing.txt not found" in result.err
    assert written(tmp_path / "v.npy")[0] == TEXTS


def test_batches_that_were_embedded_input_by_input_are_resumed(run, embedded, tmp_path):
    """The second batch is refused as a whole, and its first input alone as well."""
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
