"""Defaults for the user's own labelled texts."""

from __future__ import annotations

import pytest
import yaml

from perceiver_plugins.sdk.sizing import DataSize
from perceiver_plugins.text.sizing import choose_defaults
from perceiver_plugins.text.tokenizers import PERCEIVER_TOKENIZER


@pytest.mark.parametrize(
    ("flags", "tokenizer"),
    [
        (["--task=text-classification"], "train:auto"),
        (["--task=classification", "--model.encoder=text"], "train:auto"),
        (["--task=text-classification", "--model=small-text-classifier"], PERCEIVER_TOKENIZER),
        (["--task=text-classification", f"--data.tokenizer={PERCEIVER_TOKENIZER}"], PERCEIVER_TOKENIZER),
    ],
)
def test_tokenizer_of_labelled_files(flags, tokenizer, labelled, perceiver, tmp_path):
    result = perceiver("fit", *flags, *labelled, f"--data.cache_dir={tmp_path / 'cache'}", "--print_config")
    assert result.code == 0, result.err
    config = yaml.safe_load(result.out)
    assert config["data"]["tokenizer"] == tokenizer
    is_small = config["model"]["num_latents"] == 8 and config["model"]["encoder"]["token_dropout"] > 0
    assert is_small is (tokenizer == "train:auto")
    (line,) = [line for line in result.err.splitlines() if "defaults by the size of the data" in line]
    assert ("--data.tokenizer=" in line) is (tokenizer == "train:auto")


def test_masked_files_are_bytes(perceiver, tmp_path):
    (tmp_path / "a.txt").write_text("a text\n")
    flags = ["--task=mlm", "--data=text-files", f"--data.train_files={tmp_path / 'a.txt'}"]
    result = perceiver("fit", *flags, f"--data.cache_dir={tmp_path / 'cache'}", "--print_config")
    assert yaml.safe_load(result.out)["data"]["tokenizer"] == PERCEIVER_TOKENIZER


def test_pretrained_encoder_keeps_its_tokenizer(fit, small, labelled, perceiver, tmp_path):
    pretrained = fit(*small, "--trainer.max_steps=1") / "checkpoints" / "last.ckpt"
    flags = ["--task=text-classification", *labelled, f"--data.cache_dir={tmp_path / 'cache'}"]
    result = perceiver("fit", *flags, f"--model.encoder.params={pretrained}", "--print_config")
    assert result.code == 0, result.err
    config = yaml.safe_load(result.out)
    assert (config["data"]["tokenizer"], config["model"]["encoder"]["token_dropout"]) == (PERCEIVER_TOKENIZER, 0.0)


@pytest.mark.parametrize(
    ("size", "token_dropout", "smoothing", "epochs"),
    [
        (DataSize(5_000, num_classes=2), 0.5, 0.1, 7),
        (DataSize(5_000, num_classes=11), 0.3, 0.1, 26),
        (DataSize(5_000, num_targets=1), 0.3, None, 26),
        (DataSize(10**6, num_classes=2), 0.5, 0.1, 3),
        (DataSize(9, num_classes=3), 0.5, 0.1, 40),
    ],
)
def test_rule(size, token_dropout, smoothing, epochs):
    chosen = choose_defaults(size, has_words=True)
    names = ("model.encoder.token_dropout", "task.label_smoothing", "trainer.max_epochs")
    assert tuple(chosen.get(name) for name in names) == (token_dropout, smoothing, epochs)
    assert choose_defaults(size, has_words=False).keys() <= {"trainer.max_epochs", "lr_scheduler.warmup_steps"}
