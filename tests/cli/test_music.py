"""Symbolic music from the command line: training, resuming, evaluation, prediction, and the extra that it needs."""

from __future__ import annotations

import json
import shutil
import sys
from importlib.abc import MetaPathFinder

import numpy as np
import pytest

from perceiver_plugins.music import read_midi, write_midi
from perceiver_plugins.music.data.rounds import compose_round

SIZES = (
    "--task=symbolic-music",
    "--data.max_seq_len=37",
    "--data.batch_size=3",
    "--model.max_seq_len=37",
    "--model.num_latents=13",
    "--model.refill_stride=5",
    "--model.num_latent_channels=20",
    "--model.encoder.num_input_channels=20",
    "--model.encoder.num_cross_attention_heads=1",
    "--model.encoder.num_self_attention_heads=2",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--model.encoder.init_scale=0.5",
)


@pytest.fixture
def songs(tmp_path):
    """Folder of seven short pieces, one of them damaged."""
    folder = tmp_path / "songs"
    folder.mkdir()
    for number in range(7):
        notes = compose_round(np.random.default_rng(number))
        write_midi(folder / f"{number}.mid", notes.take(notes.onsets < 9))
    (folder / "6.mid").write_bytes((folder / "6.mid").read_bytes()[:-40])
    return folder


@pytest.mark.slow
def test_a_model_of_files_resumes_evaluates_and_predicts(
    perceiver, fit, trainer, songs, tmp_path, assert_same_training_state
):
    data = ["--data=midi-files", f"--data.path={songs}", "--data.test_fraction=0.2"]
    flags = [*SIZES, *data, *trainer, "--trainer.max_epochs=-1", "--lr_scheduler=none", "--data.val_fraction=0.2"]
    whole = fit(*flags, "--trainer.max_steps=7") / "checkpoints" / "last.ckpt"
    part = fit(*flags, "--trainer.max_steps=3") / "checkpoints" / "last.ckpt"
    resumed = fit(f"--ckpt_path={part}", "--trainer.max_steps=7") / "checkpoints" / "last.ckpt"
    assert_same_training_state(whole, resumed)

    tested = perceiver("test", f"--ckpt_path={whole}")
    assert tested.code == 0
    for name in ("test_loss", "test_nats_per_note", "test_perplexity"):
        assert name in tested.out

    prompt = tmp_path / "prompt.mid"
    shutil.copy(songs / "0.mid", prompt)
    shutil.rmtree(songs)
    outputs = []
    for name, extra in (("a.mid", []), ("b.mid", ["--batch_size=1"])):
        output = tmp_path / name
        argv = [str(prompt), f"--output={output}", "--max_new_tokens=50", "--seed=1", *extra]
        predicted = perceiver("predict", f"--ckpt_path={whole}", *argv)
        assert predicted.code == 0, predicted.err
        outputs.append(output.read_bytes())
    assert outputs[0] == outputs[1]
    notes = read_midi(outputs[0], "a.mid").notes
    assert notes.size >= read_midi(prompt.read_bytes(), "prompt.mid").notes.size
    again = perceiver("predict", f"--ckpt_path={whole}", str(prompt), f"--output={tmp_path / 'a.mid'}")
    assert again.error.endswith("a.mid: already exists (--overwrite replaces it)")
    as_json = perceiver("predict", f"--ckpt_path={whole}", "", "--format=json", "--max_new_tokens=9")
    assert json.loads(as_json.out)[0]["prompt_notes"] == 0


@pytest.mark.slow
def test_the_default_trains_without_files(fit, load, trainer):
    run = fit(*SIZES, *trainer, "--data.num_pieces=8", "--trainer.max_steps=2")
    assert load(run / "checkpoints" / "last.ckpt")["perceiver"]["data"]["tokenizer"]["miditok"]["config"]


class Blocked(MetaPathFinder):
    """Finder that hides installed packages."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("symusic", "miditok"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_missing_extra_is_one_line(perceiver, monkeypatch):
    for name in list(sys.modules):
        if name.startswith(("perceiver_plugins.music", "symusic", "miditok")) and not name.endswith(".plugin"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    listed = perceiver("list-data")
    assert listed.code == 0
    assert "midi-files" in listed.out
    result = perceiver("fit", *SIZES)
    assert result.error.endswith("not installed (pip install 'perceiver-zoo[music]')")
