"""Evaluation on files of its own needs no training data."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

SIZES = (
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--model.encoder.num_self_attention_heads=2",
    "--model.decoder.num_output_query_channels=16",
    "--trainer.max_steps=4",
)


def rows(kind: str, numbers: Iterable[int]) -> str:
    if kind in ("text", "masked"):
        return "text,label\n" + "".join(f"word {'yes' * (n % 3)} {n},{'abc'[n % 3]}\n" for n in numbers)
    if kind == "class":
        return "x,y,label\n" + "".join(f"{n},{n % 7},{'abc'[n % 3]}\n" for n in numbers)
    return "x,y,label\n" + "".join(f"{n},{n % 7},{3 * n}\n" for n in numbers)


FLAGS = {
    "masked": ["--task=mlm", "--data=text-files", "--data.max_seq_len=16"],
    "text": ["--task=text-classification", "--data=text-files", "--data.max_seq_len=16"],
    "class": ["--task=classification", "--model.encoder=table", "--data=table-files", "--data.target=class"],
    "number": ["--task=regression", "--model.encoder=table", "--data=table-files"],
}


def losses(out: str, stage: str) -> list[float]:
    return [float(number) for number in re.findall(rf"{stage}_loss\D+([\d.]+)", out)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLAGS)
def test_evaluation_needs_no_training_files(perceiver, fit, trainer, tmp_path, kind):
    Path("train.csv").write_text(rows(kind, range(60)))
    Path("val.csv").write_text(rows(kind, range(100, 130)))
    # Of two of the three classes only, so that their order is not found here.
    Path("test.csv").write_text(rows(kind, [n for n in range(60, 90) if n % 3]))
    files = ["--data.train_files=train.csv", "--data.val_files=val.csv", "--data.test_files=test.csv"]
    channels = ["--model.encoder.num_input_channels=16"] if kind in ("text", "masked") else []
    task = [flag for flag in FLAGS[kind] if flag.startswith("--task")]
    fit(*FLAGS[kind], *files, *SIZES, *channels, *trainer)
    with_training = perceiver("test", *task, "--ckpt_path=last")
    Path("train.csv").unlink()
    Path("val.csv").rename("other.csv")
    without = perceiver("test", *task, "--ckpt_path=last", "--data.test_files=test.csv")
    assert without.code == 0, without.err
    assert losses(without.out, "test") == losses(with_training.out, "test") != []
    result = perceiver("validate", *task, "--ckpt_path=last", "--data.val_files=other.csv")
    assert result.code == 0, result.err
    assert losses(result.out, "val")


@pytest.mark.parametrize("kind", FLAGS)
def test_training_needs_training_files(perceiver, trainer, tmp_path, kind):
    Path("test.csv").write_text(rows(kind, range(30)))
    error = perceiver("fit", *FLAGS[kind], *SIZES, *trainer, "--data.test_files=test.csv").error
    assert error == "--data.train_files: missing (name the files to train on)"
