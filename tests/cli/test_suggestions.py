"""Wrong flags, arguments, commands and fields lead to the right ones."""

from __future__ import annotations

import pytest

from perceiver_cli.suggestions import nearest_names
from perceiver_registry import UserError, create_model

KNOWN = ("optimizer.lr", "trainer.max_steps", "trainer.min_steps", "data.seed", "seed_everything", "data.batch_size")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lr", ["optimizer.lr"]),
        ("learning-rate", ["optimizer.lr"]),
        ("optimizer.learning_rate", ["optimizer.lr"]),
        ("optimizer_lr", ["optimizer.lr"]),
        ("trainer.max-steps", ["trainer.max_steps"]),
        ("maxsteps", ["trainer.max_steps"]),
        ("batchsize", ["data.batch_size"]),
        ("seed", ["seed_everything", "data.seed"]),
        ("trainer.max_stps", ["trainer.max_steps", "trainer.min_steps"]),
        ("zzz", []),
    ],
)
def test_names_are_matched_by_their_last_part(name, found):
    assert nearest_names(name, KNOWN) == found


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--lr=0.1", "--lr: unknown flag (did you mean '--optimizer.lr'?)"),
        ("-lr=0.1", "-lr: unknown flag (did you mean '--optimizer.lr'?)"),
        ("--data.max-seq-len=8", "--data.max-seq-len: unknown flag (did you mean '--data.max_seq_len'?)"),
        ("--alow=x", "--alow: unknown flag (did you mean '--allow'?)"),
        ("digits", "'digits': unexpected argument (did you mean --data=digits?)"),
        ("max_steps=3", "'max_steps=3': unexpected argument (did you mean --trainer.max_steps=3?)"),
        ("run/last.ckpt", "did you mean --ckpt_path=run/last.ckpt?"),
        ("recipe.yaml", "did you mean --config=recipe.yaml?"),
        ("-task=mlm", "-task=mlm: flags begin with two dashes (did you mean --task=mlm?)"),
    ],
)
def test_flags_of_fit(perceiver, small, flag, message):
    assert message in perceiver("fit", *small, flag).error


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "mlm"], "--task: missing (did you mean --task=mlm?)"),
        (["train", "--task=mlm"], "'train': unknown command (did you mean 'fit'?)"),
        (["list_tasks"], "'list_tasks': unknown command (did you mean 'list-tasks'?)"),
        (["mlm"], "did you mean perceiver fit --task=mlm?"),
        (["--task=mlm"], "a command comes first: perceiver fit --task=mlm"),
        (["export", "--ckpt-path=a"], "--ckpt-path: unknown flag (did you mean '--ckpt_path'?)"),
        (["convert", "a", "b", "--fromat=x"], "--fromat: unknown flag (did you mean '--format'?)"),
    ],
)
def test_commands(perceiver, argv, message):
    assert message in perceiver(*argv).error


def test_keys_of_config_files(perceiver, small, tmp_path):
    (tmp_path / "c.yaml").write_text("lr: 0.1")
    error = perceiver("fit", *small, "--config=c.yaml").error
    assert error == "--config=c.yaml, line 1: unknown key 'lr' (did you mean 'optimizer.lr'?)"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_classes": 3}, "model has no field 'num_classes'; did you mean decoder={'num_classes': ...}?"),
        ({"dropout": 0.1}, "did you mean encoder={'dropout': ...} or decoder={'dropout': ...}?"),
        ({"decoder": {"num_latents": 3}}, "decoder has no field 'num_latents'; did you mean num_latents=...?"),
        ({"num_latent": 3}, "model has no field 'num_latent'; did you mean 'num_latents'"),
    ],
)
def test_fields_of_models(overrides, message):
    with pytest.raises(UserError) as error:
        create_model("mnist-classifier", **overrides)
    assert message in str(error.value)
