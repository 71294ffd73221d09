"""docs/speed.md: its commands and examples run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from perceiver_cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "speed.md").read_text(encoding="utf-8")
TINY = (
    "--model.num_latents=4",
    "--model.num_latent_channels=16",
    "--model.encoder.num_self_attention_layers_per_block=1",
    "--data.max_seq_len=32",
    "--data.batch_size=2",
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=1",
    "--trainer.val_check_interval=1",
    "--trainer.limit_val_batches=1",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


def blocks(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL))


def commands(command: str) -> list[list[str]]:
    lines = blocks("bash").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"perceiver {command} ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PERCEIVER_CACHE", str(tmp_path / "cache"))
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):  # set first, so that monkeypatch restores them
        monkeypatch.setenv(variable, "0")
        monkeypatch.delenv(variable)


def test_python_examples_run():
    exec(blocks("python"), {})


@pytest.mark.parametrize("argv", commands("fit"), ids=lambda argv: argv[2])
def test_flags_set_their_values(folder, argv, capsys):
    assert main([*argv, "--print_config"]) == 0
    values = yaml.safe_load(capsys.readouterr().out)
    for flag in argv[2:]:
        name, _, value = flag.removeprefix("--").partition("=")
        section, field = name.split(".")
        actual = values[section][field]
        assert (actual["adapter"] if isinstance(actual, dict) else actual) == yaml.safe_load(value)


@pytest.mark.slow
def test_in_backward_training_and_int8_prediction(folder, capsys):
    (fit,) = (argv for argv in commands("fit") if "--optimizer.in_backward=true" in argv)
    clipping = [flag for flag in fit if "gradient_clip_val" not in flag]
    assert main([*clipping, *TINY]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--optimizer.in_backward=true" in error
    assert "--trainer.gradient_clip_val=1.0 (set it to null)" in error
    assert main([*fit, *TINY]) == 0
    capsys.readouterr()
    (predict,) = commands("predict")
    assert main(predict) == 0
    printed = capsys.readouterr()
    source, quantized = printed.err.splitlines()
    assert source.startswith("perceiver: predicting with logs/mlm/")
    assert quantized == "perceiver: predicting with int8 weights, which changes predictions slightly"
    assert printed.out
    assert main([flag for flag in predict if "--quantize" not in flag]) == 0
    assert capsys.readouterr().err.splitlines() == [source]
