"""Pretrained encoders by flag: the options they set, and errors about encoders that do not fit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
import yaml
from PIL import Image

from perceiver_plugins.checkpoints import formats
from perceiver_registry import checkpoint

PARTS = ("model.input_adapter.", "model.encoder.")

STILL = ("--optimizer.lr=0", "--trainer.max_steps=2")
"""Flags of two training steps that do not change the weights."""


@pytest.fixture
def classify(labelled, trainer) -> list[str]:
    """Flags of a classifier of texts without its encoder."""
    labelled = [flag for flag in labelled if "max_seq_len" not in flag]
    return ["--task=text-classification", *labelled, *trainer, "--lr_scheduler=none"]


@pytest.fixture
def from_mlm(trained) -> str:
    return f"--model.encoder.params={trained.last}"


@pytest.fixture
def printed(perceiver):
    """Return a function that parses the printed configuration of a command line."""

    def printed(*argv: str) -> dict:
        result = perceiver("fit", *argv, "--print_config")
        assert result.code == 0, result.err
        return yaml.safe_load(result.out)

    return printed


@pytest.fixture
def encoder_of(load):
    """Return a function that reads the weights of encoder and input adapter in a checkpoint."""

    def encoder_of(path) -> dict[str, torch.Tensor]:
        weights = {key: value for key, value in load(path)["state_dict"].items() if key.startswith(PARTS)}
        assert len(weights) > 20
        return weights

    return encoder_of


@pytest.fixture
def assert_same_encoder(encoder_of):
    def assert_same(left, right) -> None:
        torch.testing.assert_close(encoder_of(left), encoder_of(right), rtol=0, atol=0)

    return assert_same


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("option", ["model.params", "model.encoder.params"])
def test_pretrained_file_is_opened_once(option, small, trained, fit, monkeypatch, tmp_path):
    opened = []

    def open_checkpoint(path, *args):
        opened.append(str(path))
        return checkpoint.open_checkpoint(path, *args)

    monkeypatch.setattr(formats, "open_checkpoint", open_checkpoint)
    fit(*small, f"--{option}={trained.last}", *STILL)
    assert opened == [str(trained.last)]


# Options from the source


def test_encoder_params_set_the_architecture(printed, classify, from_mlm, trained):
    config = printed(*classify, from_mlm)
    of_mlm = yaml.safe_load((trained.folder / "config.yaml").read_text())
    assert of_mlm["model"]["init"] == "local"
    fixed = {"vocab_size": 262, "max_seq_len": 32, "params": str(trained.last)}  # sizes of the weights, not of the data
    assert config["model"]["encoder"] == of_mlm["model"]["encoder"] | fixed
    for field in ("num_latents", "num_latent_channels"):
        assert config["model"][field] == of_mlm["model"][field]
    for option in ("tokenizer", "max_seq_len", "add_special_tokens"):
        assert config["data"][option] == of_mlm["data"][option]
    assert config["data"]["padding_side"] == "right"  # which the tokenizer decided there
    assert config["model"]["decoder"]["adapter"] == "classification"
    assert config["model"]["decoder"]["label_names"] is None  # those of the data
    assert config["data"]["target"] == "class"


@pytest.fixture
def words(tmp_path) -> str:
    """Folder with a tokenizer of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    numbers = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[MASK]", *map(str, range(60)), "gut"])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]"}
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    fast.save_pretrained(tmp_path / "words")
    return str(tmp_path / "words")


@pytest.mark.slow
def test_encoder_params_set_tokenizer_and_length(fit, load, perceiver, classify, small, words, encoder_of):
    mlm = fit(*small, f"--data.tokenizer={words}", "--data.max_seq_len=6", "--trainer.max_steps=1")
    folder = fit(*classify, f"--model.encoder.params={last(mlm)}", *STILL)
    description = load(last(folder))["perceiver"]
    assert description["run"]["data"]["tokenizer"] == words
    assert description["data"]["max_seq_len"] == 6
    assert description["data"]["tokenizer"] == load(last(mlm))["perceiver"]["data"]["tokenizer"]
    assert encoder_of(last(folder))["model.input_adapter.token_embedding.weight"].shape == (64, 16)
    (prediction,) = json.loads(perceiver("predict", f"--ckpt_path={last(folder)}", "59 gut", "--format=json").out)
    assert prediction["label"] in ("gut", "schlecht")


@pytest.mark.parametrize("flags", [(), ("--model.init=normal",), ("--model.encoder.freeze=true",)])
def test_encoder_params_set_the_weights(fit, classify, from_mlm, trained, flags, assert_same_encoder):
    folder = fit(*classify, from_mlm, *STILL, *flags)
    assert_same_encoder(last(folder), trained.last)


@pytest.mark.slow
def test_frozen_encoder_does_not_change(fit, load, classify, from_mlm, trained, assert_same_encoder):
    steps = ["--trainer.max_steps=3", "--optimizer.lr=0.1"]
    still, free, frozen = (
        last(fit(*classify, from_mlm, *flags)) for flags in (STILL, steps, [*steps, "--model.encoder.freeze=true"])
    )
    assert_same_encoder(frozen, trained.last)
    with pytest.raises(AssertionError):
        assert_same_encoder(free, trained.last)
    key = "model.output_adapter.linear.weight"
    untrained, trained_in_frozen = (load(path)["state_dict"][key] for path in (still, frozen))
    assert not torch.equal(untrained, trained_in_frozen)


def test_flags_override_the_pretrained_encoder(fit, load, classify, from_mlm, trained, assert_same_encoder):
    flags = ["--data.max_seq_len=16", "--model.encoder.dropout=0.25", "--data.padding_side=left"]
    folder = fit(*classify, from_mlm, *STILL, *flags)
    described = load(last(folder))["perceiver"]
    assert described["data"]["max_seq_len"] == 16
    assert described["data"]["padding_side"] == "left"
    assert described["model"]["encoder"]["dropout"] == 0.25
    assert described["model"]["encoder"]["max_seq_len"] == 32  # positions of the weights
    assert_same_encoder(last(folder), trained.last)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mlm", "token-classification", "regression", "classification"])
def test_encoder_is_used_in_any_task(fit, load, classify, from_mlm, trained, task, tmp_path, assert_same_encoder):
    rows = [{"text": "gut gut", "words": ["so", "so"], "parts": ["x", "y"], "stars": n} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = ["--data=text-files", "--data.train_files=rows.jsonl", "--data.val_files=more.jsonl"]
    shutil.copy("rows.jsonl", "more.jsonl")
    columns = {
        "token-classification": ["--data.tokens_column=words", "--data.label_column=parts"],
        "regression": ["--data.label_column=stars"],
        "classification": ["--data.label_column=stars"],
    }
    rest = [flag for flag in classify if not flag.startswith(("--task", "--data"))]
    folder = fit(f"--task={task}", *data, *columns.get(task, []), *rest, from_mlm, *STILL)
    assert_same_encoder(last(folder), trained.last)
    assert load(last(folder))["perceiver"]["task"] == task


# Ways to say it


CONFIG = """
task: text-classification
model:
  encoder:
    params: {params}
    freeze: true
    dropout: 0.5
data:
  name: text-files
  train_files: {folder}/train.jsonl
  val_files: {folder}/val.jsonl
optimizer:
  lr: 0.1
trainer:
  max_steps: 2
"""


@pytest.mark.slow
def test_encoder_params_in_a_config_file(fit, load, trainer, trained, reviews, tmp_path, assert_same_encoder):
    (tmp_path / "c.yaml").write_text(CONFIG.format(params=trained.last, folder=reviews))
    folder = fit("--config=c.yaml", *trainer, "--model.encoder.dropout=0.25")
    assert_same_encoder(last(folder), trained.last)
    encoder = load(last(folder))["perceiver"]["model"]["encoder"]
    assert (encoder["freeze"], encoder["dropout"], encoder["num_input_channels"]) == (True, 0.25, 16)


@pytest.mark.slow
def test_null_disables_encoder_params(printed, trained, reviews, tmp_path):
    (tmp_path / "c.yaml").write_text(CONFIG.format(params=trained.last, folder=reviews))
    fresh = printed("--task=text-classification", f"--data.train_files={reviews / 'train.jsonl'}", "--data=text-files")
    for null in ("null", "none"):
        config = printed("--config=c.yaml", f"--model.encoder.params={null}")
        assert config["model"]["encoder"] == fresh["model"]["encoder"] | {"freeze": True, "dropout": 0.5}
        assert config["model"]["num_latents"] == fresh["model"]["num_latents"] != 4


@pytest.fixture
def published(tmp_path):
    """Folder in the hub's layout with a language model and its tokenizer, and the weights."""
    config = transformers.PerceiverConfig(
        d_model=16, d_latents=16, num_latents=5, num_self_attends_per_block=1, num_self_attention_heads=2,
        num_cross_attention_heads=2, max_position_embeddings=24, v_channels=16, qk_channels=16,
    )  # fmt: skip
    model = transformers.PerceiverForMaskedLM(config)
    model.save_pretrained(tmp_path / "published")
    transformers.PerceiverTokenizer().save_pretrained(tmp_path / "published")
    return "published", model.state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--data.tokenizer=published", "--data.add_special_tokens=true")])
def test_encoder_of_a_published_model(fit, load, perceiver, classify, published, flags, encoder_of):
    source, weights = published
    folder = fit(*classify, f"--model.encoder.params={source}", "--model.encoder.freeze=true", *flags, *STILL)
    ours = encoder_of(last(folder))
    for name, source_name in {
        "model.input_adapter.token_embedding.weight": "perceiver.input_preprocessor.embeddings.weight",
        "model.input_adapter.position_embedding.weight": "perceiver.input_preprocessor.position_embeddings.weight",
        "model.encoder.latents": "perceiver.embeddings.latents",
    }.items():
        torch.testing.assert_close(ours[name], weights[source_name], rtol=0, atol=0)
    described = load(last(folder))["perceiver"]
    assert described["data"]["max_seq_len"] == described["model"]["encoder"]["max_seq_len"] == 24
    assert described["data"]["add_special_tokens"]  # as published models of texts have them
    assert described["model"]["num_latents"] == 5
    assert perceiver("predict", f"--ckpt_path={last(folder)}", "näht 44").code == 0


# Images


@pytest.mark.slow
def test_image_encoder_in_another_task(fit, image_classifier, trainer, assert_same_encoder):
    flags = ["--task=classification", "--data=digits", *trainer, *STILL, "--trainer.limit_val_batches=1"]
    params = f"--model.encoder.params={image_classifier.last}"
    for encoder in ([], ["--model.encoder=image-pixels"]):
        folder = fit(*flags, *encoder, params)
        assert_same_encoder(last(folder), image_classifier.last)


@pytest.fixture
def photos(tmp_path) -> str:
    """Folder with ten classes of colour images, larger than the digits."""
    for number in range(10):
        for colour in (50, 150, 250):
            path = tmp_path / "photos" / str(number) / f"{colour}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 15), (colour, 20 * number, 0)).save(path)
    return "photos"


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--model.encoder.params", "--model.params"])
def test_image_options_are_taken_from_params(fit, load, perceiver, image_classifier, trainer, photos, flag):
    data = ["--data=image-folder", f"--data.path={photos}"]
    flags = ["--task=image-classification", *data, f"{flag}={image_classifier.last}", *trainer, *STILL]
    folder = fit(*flags)
    actual, expected = (load(path)["perceiver"]["data"] for path in (last(folder), image_classifier.last))
    assert actual == expected
    assert (actual["image_size"], actual["num_channels"]) == ([8, 8], 1)
    predicted = perceiver("predict", f"--ckpt_path={last(folder)}", photos, "--format=json")
    assert len(json.loads(predicted.out)) == 30
    larger = fit(*flags, "--data.image_size=[12, 16]")
    assert load(last(larger))["perceiver"]["data"] == expected | {"image_size": [12, 16]}


# Afterwards


@pytest.mark.slow
def test_source_of_params_may_be_deleted_after_training(
    fit, load, perceiver, classify, trained, tmp_path, assert_same_encoder, assert_same_training_state
):
    shutil.copy(trained.last, tmp_path / "mlm.ckpt")
    flags = [*classify, "--model.encoder.params=mlm.ckpt", "--optimizer.lr=0.01"]
    whole = fit(*flags, "--trainer.max_steps=7", "--trainer.default_root_dir=whole")
    folder = fit(*flags, "--trainer.max_steps=3")
    again = fit(f"--config={folder / 'config.yaml'}")
    assert_same_training_state(last(again), last(folder))
    assert again != folder
    shutil.rmtree(again)
    (tmp_path / "mlm.ckpt").unlink()
    assert fit("--ckpt_path=last", "--trainer.max_steps=7") == folder
    assert load(last(folder))["global_step"] == 7
    assert_same_training_state(last(folder), last(whole))
    for command in (["validate"], ["test"], ["predict", "gut"]):
        result = perceiver(*command, f"--ckpt_path={last(folder)}")
        assert result.code == 0, result.err
    gone = perceiver("fit", f"--config={whole / 'config.yaml'}")
    assert gone.error == "mlm.ckpt: no such checkpoint"


# What does not fit


@pytest.fixture
def refusal(perceiver, classify, trained, tmp_path):
    """Return the error line of a classifier with the language model's encoder and further flags."""

    def refusal(*argv: str, flags: list[str] = classify) -> str:
        shutil.copy(trained.last, tmp_path / "mlm.ckpt")
        return perceiver("fit", *flags, *STILL, "--model.encoder.params=mlm.ckpt", *argv).error

    return refusal


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model.num_latents=5", "'encoder.latents' has shape (4, 16), the model's has (5, 16)"),
        (
            "--model.encoder.max_seq_len=64",
            "'input_adapter.position_embedding.weight' has shape (32, 16), the model's has (64, 16)",
        ),
        (
            "--model.encoder.num_self_attention_layers_per_block=2",
            "'encoder.self_attention_blocks.0.1.norm.weight' is missing; ",
        ),
        ("--model.encoder.cross_attention_widening_factor=2", "has shape (16, 16), the model's has (32, 16)"),
    ],
)
def test_misfitting_weights_are_listed(refusal, flag, message):
    line = refusal(flag)
    assert line.startswith("--model.encoder.params='mlm.ckpt': does not fit the model: '")
    assert message in line
    listed = line.count("; '") + 1
    assert listed <= 6
    assert ("; and 10 more" in line) == (listed == 6)


def test_encoder_of_another_modality_is_refused(refusal, trainer):
    images = ["--task=image-classification", "--data=digits", *trainer]
    line = refusal("--model.encoder=image-patches", flags=images)
    assert "does not fit the model: 'input_adapter.conv.weight' is missing" in line
    assert "--data=digits: yields pixel_values, but input adapter 'text' reads input_ids" in refusal(flags=images)


def test_data_that_does_not_fit_the_encoder_is_refused(refusal, words):
    assert "the data's max_seq_len=64 does not fit the model's max_seq_len=32" in refusal("--data.max_seq_len=64")
    assert "the data's vocab_size=64 does not fit the model's vocab_size=262" in refusal(f"--data.tokenizer={words}")


def test_fully_frozen_model_is_refused(refusal):
    line = refusal("--model.encoder.freeze=true", "--model.decoder.freeze=true")
    assert line == "nothing to train: encoder and decoder are both frozen"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.ckpt", "missing.ckpt: no such checkpoint"),
        ("missing.safetensors", "--model.encoder.params='missing.safetensors': no such file"),
        ("./missing", "./missing: no such file or folder"),
        ("empty", "empty: not a model in a readable format"),
        ("text.ckpt", "text.ckpt: not a readable checkpoint"),
    ],
)
def test_missing_source_is_reported(refusal, source, message, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.ckpt").write_text("a text")
    assert refusal(f"--model.encoder.params={source}").startswith(message)


def test_params_of_model_and_encoder_are_exclusive(refusal, text_classifier):
    assert refusal(f"--model.params={text_classifier.last}") == (
        "--model.params and --model.encoder.params: set only one (--model.params includes the encoder)"
    )
