"""Configuration of runs by flags, registered names, class names and config files."""

from __future__ import annotations

import json
from typing import Union

import pytest
import torch
import transformers
import yaml

from perceiver_cli.flags import Parser
from perceiver_registry import load_model


@pytest.fixture
def printed(perceiver):
    """Return the configuration of a command line."""

    def printed(*argv: str) -> dict:
        result = perceiver("fit", *argv, "--print_config")
        assert result.code == 0, result.err
        return yaml.safe_load(result.out)

    return printed


@pytest.mark.slow
def test_command_line_of_the_original_project(fit, load, texts, model, tmp_path):
    (tmp_path / "wikipedia").mkdir()
    rows = [json.dumps({"title": "x", "text": texts.joinpath("train.txt").read_text()}) for _ in range(40)]
    (tmp_path / "wikipedia" / "train.jsonl").write_text("\n".join(rows))
    line = """--task=mlm --model.encoder.dropout=0.0 --model.decoder.dropout=0.0 --data=WikipediaDataModule
        --data.tokenizer=deepmind/language-perceiver --data.max_seq_len=32 --data.batch_size=4
        --optimizer=Lamb --optimizer.lr=1e-3 --trainer.accelerator=cpu --trainer.devices=-1
        --trainer.logger=TensorBoardLogger --trainer.logger.save_dir=runs --trainer.logger.name=mine"""
    small = [f"--data.dataset={tmp_path / 'wikipedia'}", "--trainer.max_steps=2", *model]
    folder = fit(*line.split(), *small)
    assert str(folder) == "runs/mine/version_0"
    checkpoint = load(folder / "checkpoints" / "last.ckpt")
    assert checkpoint["hyper_parameters"]["optimizer"]["name"] == "Lamb"
    assert checkpoint["perceiver"]["run"]["data"]["name"] == "wikipedia"
    again = fit(f"--ckpt_path={folder / 'checkpoints' / 'last.ckpt'}", "--trainer.max_steps=3")
    assert str(again) == "runs/mine/version_0"
    assert load(again / "checkpoints" / "last.ckpt")["global_step"] == 3
    last = fit(*line.split(), *small, "--ckpt_path=last", "--trainer.max_steps=4")
    assert str(last) == "runs/mine/version_0"
    assert load(last / "checkpoints" / "last.ckpt")["global_step"] == 4


@pytest.mark.parametrize(("given", "limit"), [("1", 1), ("1.0", 1.0), ("0.5", 0.5), ("null", None)])
@pytest.mark.parametrize("hint", [Union[int, float, None], Union[float, int, None]])  # noqa: UP007
def test_limit_is_a_number_of_batches_or_a_fraction(hint, given, limit):
    parser = Parser()
    parser.add_argument("--limit", type=hint)
    parser.prefer_integers()
    read = parser.parse_args([f"--limit={given}"]).limit
    assert (read, type(read)) == (limit, type(limit))


def test_number_of_batches_is_an_integer(printed, small):
    read = printed(*small, "--trainer.limit_val_batches=1")["trainer"]["limit_val_batches"]
    assert (read, type(read)) == (1, int)


@pytest.mark.parametrize(
    "name",
    ["text-files", "TextFilesDataModule", "perceiver_plugins.text.data.TextFilesDataModule"],
)
def test_data_modules_by_any_name(printed, small, data, name):
    canonical = printed(*small)
    flags = [flag for flag in small if flag not in data]
    options = data[1:]
    assert printed(*flags, f"--data={name}", *options)["data"]["max_seq_len"] == 32
    lightning = [option.replace("--data.", "--data.init_args.") for option in options]
    by_class_path = printed(*flags, f"--data.class_path={name}", *lightning)
    assert {**by_class_path, "data": {**by_class_path["data"], "name": "text-files"}} == canonical


CONFIG = """
task: mlm
model:
  num_latents: 4
  encoder:
    num_self_attention_layers_per_block: 1
data:
  class_path: perceiver_plugins.text.data.local.TextFilesDataModule
  init_args:
    train_files: {train}
    max_seq_len: 24
optimizer:
  class_path: torch.optim.SGD
  init_args:
    lr: 0.25
lr_scheduler: constant_with_warmup
trainer:
  max_steps: 7
"""


def test_config_files_in_lightning_format(printed, texts, tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG.format(train=texts / "train.txt"))
    config = printed("--config=c.yaml")
    assert config["data"]["name"] == "perceiver_plugins.text.data.local.TextFilesDataModule"
    assert config["data"]["max_seq_len"] == 24
    assert (config["optimizer"]["lr"], config["optimizer"]["momentum"]) == (0.25, 0)
    assert config["lr_scheduler"]["warmup_steps"] == 0
    assert config["trainer"]["max_steps"] == 7
    assert config["trainer"]["gradient_clip_val"] == 1.0, "the task's defaults are below"


def test_later_files_and_flags_win(printed, texts, tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG.format(train=texts / "train.txt"))
    (tmp_path / "d.yaml").write_text("data:\n  batch_size: 3\noptimizer:\n  momentum: 0.5\ntrainer:\n  max_steps: 8\n")
    config = printed("--config=c.yaml", "--config", "d.yaml", "--data.max_seq_len", "20", "--trainer.max_steps=9")
    assert config["data"]["batch_size"] == 3
    assert config["data"]["max_seq_len"] == 20
    assert (config["optimizer"]["lr"], config["optimizer"]["momentum"]) == (0.25, 0.5)
    assert config["trainer"]["max_steps"] == 9


@pytest.mark.slow
def test_file_options_apply_to_the_optimizer_named_by_a_flag(printed, small, tmp_path):
    (tmp_path / "c.yaml").write_text("data:\n  mask_prob: 0.3\noptimizer:\n  momentum: 0.5\n")
    config = printed("--config=c.yaml", *small, "--optimizer=SGD")
    assert config["data"]["mask_prob"] == 0.3
    assert config["optimizer"]["momentum"] == 0.5
    (tmp_path / "c.yaml").write_text("data:\n  class_path: TextFilesDataModule\n  init_args:\n    mask_prob: 0.4\n")
    assert printed("--config=c.yaml", *small)["data"]["mask_prob"] == 0.4
    (tmp_path / "c.yaml").write_text("lr_scheduler:\n  warmup_steps: 5\n")
    assert printed("--config=c.yaml", *small)["lr_scheduler"]["warmup_steps"] == 5
    assert printed("--config=c.yaml", *small, "--lr_scheduler=none").get("lr_scheduler", {}).get("name") is None


def test_another_optimizer_drops_options_of_the_previous_one(printed, small, tmp_path):
    assert printed(*small)["optimizer"]["lr"] == 2e-3
    (tmp_path / "c.yaml").write_text("optimizer:\n  name: SGD\n  momentum: 0.5\n")
    config = printed(*small, "--config=c.yaml", "--optimizer=Adam")
    assert "momentum" not in config["optimizer"]
    assert config["optimizer"]["lr"] == 1e-3  # its own default


@pytest.mark.parametrize(
    ("flags", "rates"),
    [
        (["--lr_scheduler=CosineWithWarmup", "--lr_scheduler.warmup_steps=2"], [0, 0.5, 1, 0.5]),
        (["--lr_scheduler=cosine_with_warmup", "--lr_scheduler.min_fraction=0.2"], None),
        (["--lr_scheduler=ConstantWithWarmup", "--lr_scheduler.warmup_steps=2"], [0, 0.5, 1, 1]),
        (["--lr_scheduler=StepLR", "--lr_scheduler.step_size=2"], [1, 1, 0.1, 0.1]),
        (["--lr_scheduler=StepLR", "--lr_scheduler.step_size=1", "--lr_scheduler.interval=epoch"], [1, 1, 1, 1]),
        (["--lr_scheduler=torch.optim.lr_scheduler.ExponentialLR", "--lr_scheduler.gamma=0.5"], [1, 0.5, 0.25, 0.125]),
        (["--lr_scheduler=ReduceLROnPlateau"], [1, 1, 1, 1]),
        (["--lr_scheduler=none"], [1, 1, 1, 1]),
    ],
)
def test_schedules_by_name(small, fit, flags, rates):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = fit(*small, "--optimizer=SGD", "--optimizer.lr=1", "--trainer.max_steps=4", *flags)
    logged = [event.value for event in EventAccumulator(str(folder)).Reload().Scalars("learning_rate")]
    cosine = [0.2 + 0.8 * x for x in (1, 0.853553, 0.5, 0.146447)]
    assert logged == pytest.approx(rates or cosine, abs=1e-6)


@pytest.mark.slow
def test_plateau_schedule_monitors_the_loss(small, fit, load):
    flags = ["--lr_scheduler=ReduceLROnPlateau", "--lr_scheduler.patience=0", "--optimizer.lr=1e-12"]
    folder = fit(*small, *flags, "--lr_scheduler.threshold=0.5", "--trainer.max_steps=16")
    (schedule,) = load(folder / "checkpoints" / "last.ckpt")["lr_schedulers"]
    assert schedule["_last_lr"] == pytest.approx([1e-14, 1e-14])  # of two groups


# Published models


SIZES = {
    "vocab_size": 262,
    "max_position_embeddings": 40,
    "num_latents": 3,
    "d_latents": 16,
    "d_model": 8,
    "num_blocks": 1,
    "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
}


@pytest.fixture
def published(tmp_path) -> str:
    """Folder in the hub's layout with a model of random weights."""
    transformers.PerceiverForMaskedLM(transformers.PerceiverConfig(**SIZES)).save_pretrained(tmp_path / "hub")
    return str(tmp_path / "hub")


@pytest.mark.slow
def test_params_set_architecture_and_weights(published, data, printed, fit, load, trainer):
    flags = ["--task=mlm", *data, *trainer, f"--model.params={published}"]
    config = printed(*flags)
    assert config["model"]["num_latents"] == 3
    assert config["model"]["encoder"]["max_seq_len"] == 40
    assert config["model"]["encoder"]["num_input_channels"] == 8
    assert config["data"]["max_seq_len"] == 32
    folder = fit(*flags, "--trainer.max_steps=1", "--optimizer=SGD", "--optimizer.lr=0")
    state = load(folder / "checkpoints" / "last.ckpt")["state_dict"]
    expected = load_model(published).state_dict()
    torch.testing.assert_close({key.removeprefix("model."): value for key, value in state.items()}, dict(expected))


def test_params_of_a_checkpoint(trained, data, fit, load, trainer):
    flags = ["--task=mlm", *data, *trainer, f"--model.params={trained.best}", "--model.encoder.dropout=0.2"]
    folder = fit(*flags, "--trainer.max_steps=1", "--optimizer=SGD", "--optimizer.lr=0")
    checkpoint = load(folder / "checkpoints" / "last.ckpt")
    assert checkpoint["global_step"] == 1
    assert checkpoint["perceiver"]["model"]["encoder"]["dropout"] == 0.2
    torch.testing.assert_close(checkpoint["state_dict"], load(trained.best)["state_dict"])


@pytest.mark.slow
def test_resumed_run_does_not_read_its_params(published, data, fit, load, trainer):
    import shutil

    fit("--task=mlm", *data, *trainer, f"--model.params={published}", "--trainer.max_steps=1")
    shutil.rmtree(published)
    folder = fit("--ckpt_path=last", "--trainer.max_steps=2")
    assert load(folder / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_params_with_another_vocabulary_are_refused(published, data, perceiver, tmp_path, trainer):
    sizes = SIZES | {"vocab_size": 100}
    transformers.PerceiverForMaskedLM(transformers.PerceiverConfig(**sizes)).save_pretrained(tmp_path / "other")
    refused = perceiver("fit", "--task=mlm", *data, *trainer, f"--model.params={tmp_path / 'other'}")
    assert refused.code == 2
    assert "vocab_size=262 does not fit the model's vocab_size=100" in refused.err.splitlines()[-1]


def test_named_model_has_the_published_configuration(printed, texts):
    config = printed("--model=language-perceiver", "--data=text-files", f"--data.train_files={texts / 'train.txt'}")
    model = config["model"]
    assert config["task"]["name"] == "mlm"
    assert (model["num_latents"], model["num_latent_channels"], model["init"]) == (256, 1280, "normal")
    encoder = model["encoder"]
    assert (encoder["vocab_size"], encoder["max_seq_len"], encoder["num_input_channels"]) == (262, 2048, 768)
    assert encoder["num_self_attention_layers_per_block"] == 26
    assert encoder["num_cross_attention_qk_channels"] == encoder["num_self_attention_qk_channels"] == 256
    assert model["decoder"]["cross_attention_residual"] is False
    assert model["decoder"]["num_output_query_channels"] is None
    assert config["data"]["max_seq_len"] == 2048
    assert (config["optimizer"]["name"], config["optimizer"]["lr"]) == ("Lamb", 1e-3)


def test_flags_override_a_named_model(printed, texts):
    flags = ["--data=text-files", f"--data.train_files={texts / 'train.txt'}", "--data.max_seq_len=64"]
    config = printed("--model=language-perceiver", *flags, "--model.encoder.dropout=0.3", "--optimizer.lr=0.5")
    assert config["model"]["encoder"]["dropout"] == 0.3
    assert config["model"]["decoder"]["dropout"] == 0.1
    assert config["optimizer"]["lr"] == 0.5
    assert config["data"]["max_seq_len"] == 64
    assert config["model"]["encoder"]["max_seq_len"] == 2048
