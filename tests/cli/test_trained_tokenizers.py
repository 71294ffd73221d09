"""Tokenizers trained on the training texts, from training to conversion."""

from __future__ import annotations

import json
import shutil

import pytest

from perceiver_plugins.text.tokenizer_training import TokenizerTraining

KINDS = ("bpe", "unigram", "word")


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


def tokenizer_of(described) -> dict:
    return described["perceiver"]["data"]["tokenizer"]


@pytest.fixture
def trained_once(monkeypatch):
    """List of the kinds of tokenizers that are trained."""
    kinds = []
    train = TokenizerTraining.train

    def counted(training, documents):
        kinds.append(training.kind)
        return train(training, documents)

    monkeypatch.setattr(TokenizerTraining, "train", counted)
    return kinds


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_tokenizer_stays_with_its_model(
    kind, perceiver, fit, load, small, labelled, trainer, trained_once, tmp_path, caplog
):
    flags = [f"--data.tokenizer=train:{kind}", "--data.vocab_size=290", "--data.mask_words=true"]
    with caplog.at_level("INFO"):
        fit(*small, *flags, "--trainer.max_steps=1")
    assert f"tokenizer: trained {kind} with " in caplog.text
    pretrained = last(fit(*small, *flags, "--trainer.max_steps=2"))
    assert trained_once == [kind]  # and cached
    answer = perceiver("predict", f"--ckpt_path={pretrained}", "word1 [MASK] word3", "--format=json")
    assert len(json.loads(answer.out)[0]["masks"]) == 1

    classify = ["--task=text-classification", *(flag for flag in labelled if "max_seq_len" not in flag), *trainer]
    tuned = last(fit(*classify, f"--model.encoder.params={pretrained}", "--lr_scheduler=none", "--trainer.max_steps=1"))
    assert tokenizer_of(load(tuned)) == tokenizer_of(load(pretrained))
    pretrained.unlink()

    resumed = last(fit(f"--ckpt_path={tuned}", "--trainer.max_steps=2"))
    assert tokenizer_of(load(resumed)) == tokenizer_of(load(tuned))
    validated = perceiver("validate", f"--ckpt_path={resumed}")
    assert validated.code == 0, validated.err

    shutil.copy(resumed, tmp_path / "model.ckpt")
    assert perceiver("convert", "model.ckpt", "converted").code == 0
    predictions = [
        json.loads(perceiver("predict", f"--ckpt_path={source}", "word1 näh", "new", "--format=json").out)
        for source in ("model.ckpt", "converted")
    ]
    for original, converted in zip(*predictions, strict=True):
        assert original["label"] == converted["label"]
        assert original["probability"] == pytest.approx(converted["probability"], abs=1e-5)
    assert trained_once == [kind]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--data.tokenizer=train:foo"],
            "--data.tokenizer: must be train:auto, train:bpe, train:unigram or train:word, got 'train:foo'",
        ),
        (
            ["--data.tokenizer=./none"],
            "--data.tokenizer: './none' is not a folder (name a folder with a saved tokenizer",
        ),
        (["--data.tokenizer=train:bpe", "--data.vocab_size=100"], "--data.vocab_size=100: must be at least 263"),
        (["--data.vocab_size=100"], "--data.vocab_size=100: only a tokenizer that is trained takes a size"),
    ],
)
def test_invalid_options(perceiver, small, flags, message):
    assert perceiver("fit", *small, *flags).error.startswith(message)


@pytest.mark.slow
def test_model_with_another_tokenizer_is_an_error(perceiver, fit, small):
    trained = last(fit(*small, "--trainer.max_steps=1"))
    error = perceiver("validate", f"--ckpt_path={trained}", "--data.tokenizer=train:bpe").error
    assert error.startswith("--data.tokenizer: train:bpe cannot be trained, as the model has the tokenizer")


@pytest.mark.slow
def test_resumed_run_equals_one_without_interruption(fit, small, assert_same_training_state):
    flags = [*small, "--data.tokenizer=train:unigram", "--trainer.max_steps=7"]
    whole = fit(*flags)
    half = fit(*flags[:-1], "--trainer.max_steps=3", "--lr_scheduler.training_steps=7")
    resumed = fit(f"--ckpt_path={last(half)}", "--trainer.max_steps=7")
    assert_same_training_state(last(whole), last(resumed))
