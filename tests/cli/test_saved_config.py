"""Configuration saved with a run, and its use with other data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

MODEL = [
    "--task=text-classification",
    "--data=text-files",
    "--data.train_files=train.jsonl",
    "--data.cache_dir=cache",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
]


def write(words: list[str], labels: list[str]) -> None:
    texts = [f"{word} {word} {number % 7} {number}" for number, word in enumerate(words)]
    rows = [{"text": text, "label": label} for text in texts for label in labels]
    Path("train.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.slow
def test_saved_config_takes_sizes_and_names_from_other_data(fit):
    write(["one", "two", "three", "four"] * 5, ["a", "b"])
    first = fit(*MODEL)
    encoder, decoder = (yaml.safe_load((first / "config.yaml").read_text())["model"][n] for n in ("encoder", "decoder"))
    assert (encoder["vocab_size"], encoder["max_seq_len"]) == (None, None)
    assert (decoder["num_classes"], decoder["label_names"]) == (None, None)

    write(["five", "six", "seven", "eight", "nine"] * 5, ["a", "b", "c"])
    second = fit(f"--config={first / 'config.yaml'}")
    assert (second / "config.yaml").read_text() == (first / "config.yaml").read_text()

    assert fit(f"--ckpt_path={second / 'checkpoints' / 'last.ckpt'}", "--trainer.max_epochs=2") == second
    saved = yaml.safe_load((second / "config.yaml").read_text())["model"]
    assert saved["decoder"]["num_classes"] is None
