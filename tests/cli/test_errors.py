"""Wrong use: one clear line on standard error, exit code 2, no traceback."""

from __future__ import annotations

import pickle

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from perceiver_registry.checkpoint import KEY


@pytest.fixture
def error(perceiver, small):
    """Return the error line of ``fit`` with further flags."""

    def error(*argv: str) -> str:
        return perceiver("fit", *small, "--trainer.max_steps=1", *argv).error

    return error


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--task=mml", "unknown task 'mml'; did you mean 'mlm'?"),
        ("--model=language-percever", "unknown model 'language-percever'; did you mean 'language-perceiver'"),
        ("--model.encoder=txt", "unknown input adapter 'txt'; did you mean 'text'?"),
        ("--model.decoder=txt", "unknown output adapter 'txt'; did you mean 'text'?"),
        ("--data=wikipdia", "unknown data module 'wikipdia'; did you mean 'wikipedia'"),
        ("--data=TextFileDataModule", "did you mean 'TextFilesDataModule'"),
        ("--data=reviews.csv", "--data=reviews.csv and --data.train_files: both name the data (give one of the two)"),
        pytest.param(f"--data={'long' * 100}", "unknown data module 'longlong", id="name too long for a file"),
        ("--data=", "unknown data module ''; known: "),
        ("--data=no.such.Module", "no.such.Module is refused: only classes of plugins, torch"),
        ("--optimizer=AdmW", "unknown optimizer 'AdmW'; did you mean 'AdamW'"),
        (
            "--lr_scheduler=CosineWarmup",
            "unknown learning rate schedule 'CosineWarmup'; did you mean 'CosineWithWarmup'",
        ),
        ("--model.encoder.dropou=0.1", "--model.encoder.dropou: unknown flag (did you mean '--model.encoder.dropout'"),
        ("--trainer.max_step=3", "--trainer.max_step: unknown flag (did you mean '--trainer.max_steps'"),
        ("--max_steps=3", "--max_steps: unknown flag (did you mean '--trainer.max_steps'"),
        ("--optimizer.momentum=0.9", "--optimizer.momentum: unknown flag (did you mean"),
        ("--qqqqq", "--qqqqq: unknown flag (known: --checkpoint, --ckpt_path, --config, --data"),
        ("mlm", "'mlm': unexpected argument"),
        ("--config", "--config: value missing (write --config=VALUE)"),
    ],
)
def test_unknown_name_is_reported_with_suggestions(error, flag, message, tmp_path):
    (tmp_path / "reviews.csv").touch()
    assert message in error(flag)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.batch_size=two"], "--data.batch_size: must be a whole number, got 'two'"),
        (["--trainer.max_steps=x"], "--trainer.max_steps: must be a whole number, got 'x'"),
        (["--model.init=zeros"], "--model.init: must be 'normal' or 'local', got 'zeros'"),
        (["--model.init=lokal"], "--model.init: must be 'normal' or 'local', got 'lokal' (did you mean 'local'?)"),
        (["--trainer.precision=bf17"], "'64', '32', '16', 'bf16' or null, got 'bf17' (did you mean 'bf16'?)"),
        (["--trainer.accumulate_grad_batches="], "--trainer.accumulate_grad_batches: must be a whole number, got ''"),
        (["--optimizer.betas=[1,2,3]"], "--optimizer.betas: must be a list of 2 numbers, got '[1,2,3]'"),
        (["--optimizer.fused=maybe"], "--optimizer.fused: must be true, false or null, got 'maybe'"),
        (["--trainer.logger=CVSLogger"], "true, false or null, got 'CVSLogger' (did you mean 'CSVLogger'?)"),
        (['--trainer.callbacks=["Timer", "EarlyStoping"]'], "got 'EarlyStoping' (did you mean 'EarlyStopping'?)"),
        (
            ["--trainer.logger=CSVLogger", "--trainer.logger.save_dirr=x"],
            "CSVLogger has no such option (did you mean 'save_dir'",
        ),
        (
            ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.patience=x"],
            "--trainer.callbacks.patience: must",
        ),
        (
            ["--trainer.callbacks+=Timer", "--trainer.callbacks.interval=x"],
            "callbacks: Unsupported parameter",
        ),
        (["--lr_scheduler=StepLR"], "--lr_scheduler.step_size: missing"),
        (["--data.val_files=missing.txt"], "--data.val_files: "),
        (["--task.patience=0"], "--task.patience=0 must be at least 1"),
        (["--model.encoder.dropout=2"], "dropout=2.0: must be at least 0 and less than 1"),
        (["--model.encoder.num_self_attention_heads=3"], "num_self_attention_heads=3"),
        (["--model.num_latents=0"], "num_latents=0"),
        (["--data.mask_prob=0"], "mask_prob=0.0 must be more than 0"),
        (["--optimizer.lr=-1"], "optimizer 'AdamW': Invalid learning rate: -1.0"),
        (["--lr_scheduler=StepLR", "--lr_scheduler.step_size=x"], "--lr_scheduler.step_size"),
        (["--trainer.devices=0"], "devices"),
        (["--trainer.strategy=foo"], "strategy='foo'"),
        (["--model.encoder.freeze=true", "--model.decoder.freeze=true"], "encoder and decoder are both frozen"),
        (["--model.params=nowhere.ckpt"], "nowhere.ckpt: no such checkpoint"),
        (["--model.params=nowhere.safetensors"], "params='nowhere.safetensors': no such file"),
        (["--model.encoder.vocab_size=100"], "vocab_size=262: must equal the encoder's, 100"),
        (
            ["--model.encoder.vocab_size=100", "--model.decoder.vocab_size=100"],
            "vocab_size=262 does not fit the model's vocab_size=100",
        ),
        (["--model.encoder.max_seq_len=16"], "max_seq_len=32 does not fit the model's max_seq_len=16"),
    ],
)
def test_wrong_value_is_reported_with_its_flag(error, flags, message):
    assert message in error(*flags)


def test_missing_required_flag_is_reported(perceiver, small):
    assert perceiver("fit").error.startswith("--task: missing (known: classification, clm, image-classification, mlm, ")
    assert perceiver("predict", "<mask>").error.startswith("--ckpt_path: missing")
    assert "data.train_files" in perceiver("fit", "--task=mlm", "--data=text-files").error
    assert "known: classification" in perceiver("fit", *small[1:]).error


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_missing_gpu_is_reported(error):
    assert "--trainer.accelerator=gpu: torch finds no GPU" in error("--trainer.accelerator=gpu")


# Config files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "--config=c.yaml: no such file"),
        ("trainer: [1, 2", "--config=c.yaml, line 2: not YAML: "),
        ("just text", "--config=c.yaml: not a mapping of options"),
        (
            "trainer:\n  max_step: 3",
            "--config=c.yaml, line 2: unknown key 'trainer.max_step' (did you mean 'trainer.max_steps'",
        ),
        (
            "model:\n  encoder:\n    dropuot: 0.1",
            "--config=c.yaml, line 3: unknown key 'model.encoder.dropuot' (",
        ),
        ("data:\n  mask_prob: much", "--config=c.yaml, line 2: data.mask_prob: must be a number, got 'much'"),
        (
            "seed_everything: 1\ntrainer:\n  callbacks:\n  - class_path: EarlyStopping\n    init_args: {patience: 1}",
            "--config=c.yaml, line 3: trainer.callbacks.monitor: missing",
        ),
        ("optimizer: AdmW", "unknown optimizer 'AdmW'"),
    ],
)
def test_wrong_config_file_is_reported(error, tmp_path, content, message):
    if content is not None:
        (tmp_path / "c.yaml").write_text(content)
    assert message in error("--config=c.yaml")


# Files of data


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "file missing.txt not found"),
        ("empty.txt", b"", "empty.txt"),
        ("blank.txt", b"\n\n  \n", "blank.txt"),
        ("binary.txt", b"GIF89a\0\0\1", "binary.txt: a binary file"),
        ("latin.txt", b"n\xe4h " * 100, "latin.txt: not UTF-8 text: invalid byte 0xe4"),
        (
            "rows.csv",
            b"title,body\na,b\n",
            "rows.csv: no column 'text'; --data.text_column must be one of: title, body",
        ),
        ("rows.jsonl", b'{"body": "a"}\n', "no column 'text'; --data.text_column must be one of: body"),
        ("rows.parquet", b"no parquet at all", "rows.parquet: not a Parquet file"),
    ],
)
def test_wrong_data_file_is_reported(error, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert message in error(f"--data.train_files={name}")


# Checkpoints


class Unsafe:
    """Object that must not be unpickled."""


def write_wrong_checkpoint(kind: str, good: bytes) -> None:
    if kind == "truncated":
        content = good[: len(good) // 2]
    elif kind == "a pickled class":
        content = pickle.dumps(Unsafe())
    elif kind == "text":
        content = b"hello"
    else:
        content = b""
    with open("wrong.ckpt", "wb") as file:
        file.write(content)
    if kind == "foreign":
        torch.save({"state_dict": {}}, "wrong.ckpt")
    elif kind == "a class of another project":
        torch.save({"model": Unsafe()}, "wrong.ckpt")
    elif kind == "a tensor":
        torch.save(torch.zeros(3), "wrong.ckpt")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "wrong.ckpt: not a readable checkpoint"),
        ("a pickled class", "wrong.ckpt: not a readable checkpoint"),
        ("a class of another project", "wrong.ckpt: not a readable checkpoint"),
        ("text", "wrong.ckpt: not a readable checkpoint"),
        ("empty", "wrong.ckpt: not a readable checkpoint"),
        ("foreign", "wrong.ckpt: not a checkpoint of perceiver"),
        ("a tensor", "wrong.ckpt: not a checkpoint of perceiver"),
    ],
)
def test_wrong_checkpoint_is_reported(trained, perceiver, command, kind, message):
    write_wrong_checkpoint(kind, trained.last.read_bytes())
    assert message in perceiver(command, "--ckpt_path=wrong.ckpt").error


def test_checkpoint_of_missing_plugin_names_the_package(trained, perceiver, load, tmp_path):
    checkpoint = load(trained.last)
    checkpoint[KEY]["plugins"][0] |= {"name": "music", "distribution": "perceiver-music", "version": "1.2"}
    torch.save(checkpoint, tmp_path / "other.ckpt")
    line = perceiver("predict", "--ckpt_path=other.ckpt", "<mask>").error
    assert "needs the task 'music' of perceiver-music 1.2: pip install perceiver-music" in line


def test_checkpoint_of_newer_format_is_reported(trained, perceiver, load, tmp_path):
    checkpoint = load(trained.last)
    checkpoint[KEY]["format"] += 1
    torch.save(checkpoint, tmp_path / "newer.ckpt")
    assert "written by a newer perceiver" in perceiver("fit", "--ckpt_path=newer.ckpt").error


@pytest.mark.parametrize("name", ["last", "best", "missing.ckpt"])
def test_missing_checkpoint_is_reported(perceiver, name):
    line = perceiver("fit", "--task=mlm", f"--ckpt_path={name}").error
    assert f"{name}: no such checkpoint" in line or f"--ckpt_path={name}: no run of task 'mlm' in logs" in line


@pytest.fixture
def large_tokenizer(tmp_path) -> str:
    """Folder with a tokenizer of another vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[MASK]", *map(str, range(300))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_data_that_does_not_fit_the_checkpoint_is_reported(trained, perceiver, large_tokenizer, command):
    checkpoint = f"--ckpt_path={trained.last}"
    longer = perceiver(command, checkpoint, "--data.max_seq_len=64").error
    assert "the data's max_seq_len=64 does not fit the model's max_seq_len=32" in longer
    larger = perceiver(command, checkpoint, f"--data.tokenizer={large_tokenizer}").error
    assert "the data's vocab_size=303 does not fit the model's vocab_size=262" in larger


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.num_latents=5", "has shape (4, 16), the model's has (5, 16)"),
        ("--model.encoder.num_self_attention_layers_per_block=2", "is missing"),
        ("--model.decoder.num_output_query_channels=8", "does not fit the model"),
    ],
)
def test_model_that_does_not_fit_the_checkpoint_is_reported(trained, perceiver, flag, message):
    assert message in perceiver("fit", f"--ckpt_path={trained.last}", flag).error


# Failures that are not wrong use


def test_failing_run_has_exit_code_1(perceiver, small):
    failed = perceiver("fit", *small, "--trainer.max_steps=1", "--trainer.callbacks=stopping.Fail", "--allow=stopping")
    assert failed.code == 1
    line = failed.err.splitlines()[-1]
    assert line == "perceiver: the run failed: the machine is on fire (--debug shows more)"
    assert "Traceback" not in failed.err


def test_unwritable_folder_has_exit_code_1(perceiver, small, tmp_path):
    (tmp_path / "logs").write_text("a file where the folder should be")
    failed = perceiver("fit", *small, "--trainer.max_steps=1")
    assert failed.code == 1
    assert "logs" in failed.err.splitlines()[-1]
    assert "Traceback" not in failed.err


def test_debug_shows_the_traceback(perceiver, small):
    for flags, code in ((["--task=mml"], 2), (["--trainer.callbacks=stopping.Fail", "--allow=stopping"], 1)):
        shown = perceiver("fit", *small, "--trainer.max_steps=1", *flags, "--debug")
        assert shown.code == code
        assert "Traceback (most recent call last)" in shown.err
