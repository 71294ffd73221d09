"""Tasks: help, descriptions, configuration, and errors about adapters and data that do not fit."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from perceiver_registry import registry

TASKS = ["classification", "image-classification", "text-classification", "token-classification", "regression"]


@pytest.mark.parametrize("task", TASKS)
def test_help_explains_the_flags_of_a_task(perceiver, task):
    result = perceiver("fit", f"--task={task}", "--help")
    assert (result.code, result.err) == (0, "")
    shown = " ".join(result.out.split())
    defaults = registry().get("task", task).spec.defaults
    flags = {
        "--task.ema_decay": "moving average of the weights",
        "--task.patience": "validations without a lower validation loss",
        "--model.encoder.params": "source of the weights of the encoder",
        "--model.encoder.freeze": "do not train the weights",
        "--data.batch_size": "Examples per batch",
        "--optimizer.lr": f"default: {defaults['optimizer.lr']}",
    }
    if task == "regression":
        flags |= {"--task.loss {mse,l1,huber}": "mean squared error"}
    else:
        flags |= {"--task.label_smoothing": "spread evenly", "--task.class_weights": '"balanced" for the inverse'}
    for flag, meaning in flags.items():
        assert re.search(rf"{re.escape(flag)} .{{0,300}}{re.escape(meaning)}", shown, re.IGNORECASE), flag
    assert "--task.config" not in shown


def test_help_shows_flags_of_chosen_names(perceiver, tmp_path):
    folder = ["--data=image-folder", "--model.encoder=image-timm"]
    shown = " ".join(perceiver("fit", "--task=image-classification", *folder, "--help").out.split())
    for flag in ("--data.path", "--data.augment", "--data.mixup_alpha", "--model.encoder.timm_model"):
        assert f" {flag} " in shown
    assert "rand-m9-mstd0.5" in shown
    assert "--model.encoder.patch_size" not in shown


@pytest.mark.parametrize(("task", "own"), [("image-classification", ["--top_k"]), ("regression", [])])
def test_help_of_prediction(perceiver, task, own):
    shown = perceiver("predict", f"--task={task}", "--help").out
    for flag in ("--attention", "--batch_size", "--input", "--format", *own):
        assert f"  {flag} " in shown
    assert ("--top_k" in shown) == bool(own)


@pytest.mark.parametrize(
    ("name", "kind", "fields", "words"),
    [
        ("image-pixels", "input", {"num_channels", "num_frequency_bands", "max_resolution", "params"}, "Fourier"),
        ("composite", "input", {"inputs", "min_padding"}, "modality embeddings"),
        ("classification", "output", {"num_classes", "label_names", "num_output_queries"}, "classes"),
        ("regression", "output", {"num_targets", "target_names", "target_std"}, "standard deviation"),
        ("regression", "task", {"loss", "ema_decay", "patience"}, "mean absolute error"),
        ("text-classification", "task", {"label_smoothing", "class_weights", "ema_decay", "patience"}, "balanced"),
        ("text-files", "data", {"train_files", "label_column", "label_names", "target", "tokenizer"}, "sorted"),
        ("image-folder", "data", {"path", "skip_unreadable", "image_size", "augment", "mixup_alpha"}, "folder"),
        ("table-files", "data", {"train_files", "label_column"}, "columns"),
        ("mnist-classifier", "model", {"num_latents", "encoder.num_frequency_bands", "decoder.num_classes"}, "MNIST"),
    ],
)
def test_all_fields_are_documented(perceiver, name, kind, fields, words):
    result = perceiver("describe", name, f"--kind={kind}", "--format=json")
    (description,) = json.loads(result.out)
    assert (description["name"], description["kind"]) == (name, kind)
    assert description["distribution"] == "perceiver-zoo"
    by_name = {field["field"]: field for field in description["fields"]}
    assert by_name.keys() >= fields
    unexplained = [field for field, facts in by_name.items() if not facts["meaning"] or not facts["type"]]
    assert not unexplained
    if kind == "task":  # the rest of its module's arguments are sections of their own
        assert by_name.keys() == fields
    shown = perceiver("describe", name, f"--kind={kind}").out
    assert words in shown
    assert all(field in shown for field in fields)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--task=image-classification", "--data=imdb"],
            "--data=imdb: does not serve task 'image-classification' (data that does: cifar10, digits, fashion-mnist, "
            "hub-images, image-folder, imagenet, mnist, random",
        ),
        (
            ["--task=text-classification", "--data=wikipedia"],
            "data that does: hub-text, imdb, languages, random, text-",
        ),
        (["--task=regression", "--data=languages"], "data that does: diabetes, random, table-files"),
        (["--task=regression", "--data=digits"], "--data=digits: does not serve task 'regression' (data that does: d"),
        (["--task=token-classification", "--data=imdb"], "data that does: hub-text, python-code, random, text-files"),
        (
            ["--task=text-classification", "--model.encoder=image-conv"],
            "--data=languages: yields input_ids and attention_mask, but input adapter 'image-conv' reads pixel_values",
        ),
        (["--task=regression", "--model.encoder=image-conv"], "data that fits: random"),
        (["--task=regression", "--data=text-files"], "(set --model.encoder=text, or choose data that fits: diabetes, "),
        (
            ["--task=classification", "--data=languages"],
            "data that fits: cifar10, digits, fashion-mnist, hub-images, image-folder, imagenet, mnist, random",
        ),
        (["--task=mlm", "--model.encoder=table"], "needs one that reads input_ids and attention_mask"),
        (
            ["--task=classification", "--model.decoder=regression"],
            "--model.decoder=regression: not an output adapter for task 'classification' (it serves: regression)",
        ),
        (["--task=clasification"], "unknown task 'clasification'; did you mean 'classification'"),
        (["--task=classification", "--data=digit"], "unknown data module 'digit'; did you mean 'digits'"),
        (["--task=classification", "--model.encoder=image-pixel"], "did you mean 'image-pixels'"),
        (
            ["--task=image-classification", "--model=mnist-clasifier"],
            "unknown model 'mnist-clasifier'; did you mean 'mnist-classifier'",
        ),
        (
            ["--task=text-classification", "--data=text-files", "--data.mask_prob=0.15"],
            "--data.mask_prob: has no effect with --task=text-classification (leave it out)",
        ),
        (
            ["--task=mlm", "--data=text-files", "--data.label_column=stars"],
            "--data.label_column: has no effect with --task=mlm (leave it out)",
        ),
        (["--task=image-classification", "--data.image_sise=3"], "did you mean '--data.image_size'"),
        (["--task=regression", "--task.loss=l2"], "--task.loss: must be 'mse', 'l1' or 'huber', got 'l2' (did you"),
        (["--task=image-classification", "--data.augment=rnd"], "augment='rnd' is not one of timm's augmentations"),
        (["--task=image-classification", "--data=image-folder"], "--data.path: missing"),
    ],
)
def test_incompatible_names_are_reported(perceiver, argv, message):
    assert message in perceiver("fit", *argv).error


@pytest.mark.slow
def test_config_files_of_earlier_versions_are_accepted(perceiver, tmp_path):
    written = {"mask_prob": 0.15, "mask_words": True, "static_masking": False, "target": "class", "max_seq_len": 40}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({"task": "text-classification", "data": {"name": "languages", **written}}))
    printed = yaml.safe_load(perceiver("fit", f"--config={path}", "--print_config").out)["data"]
    assert (printed["target"], printed["max_seq_len"]) == ("class", 40)
    assert "mask_prob" not in printed
    path.write_text(path.read_text().replace("0.15", "0.4"))
    error = perceiver("fit", f"--config={path}").error
    assert "data.mask_prob: has no effect with --task=text-classification (leave it out)" in error


@pytest.mark.slow
def test_printed_configuration_repeats_the_run(perceiver, fit, trainer, tmp_path, assert_same_training_state):
    small = ["--model.num_latents=4", "--model.num_latent_channels=16", "--data.mixup_alpha=0.5"]
    short = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--task.class_weights=balanced"]
    flags = ["--task=image-classification", *small, *short, *trainer]
    printed = perceiver("fit", *flags, "--print_config")
    assert (printed.code, printed.err) == (0, "")
    (tmp_path / "c.yaml").write_text(printed.out)
    config = yaml.safe_load(printed.out)
    assert config["model"]["decoder"]["num_classes"] is None  # taken from the data
    assert perceiver("fit", "--config=c.yaml", "--print_config").out == printed.out
    by_flags, by_config = fit(*flags), fit("--config=c.yaml")
    assert yaml.safe_load((by_config / "config.yaml").read_text()) == config
    assert_same_training_state(*(folder / "checkpoints" / "last.ckpt" for folder in (by_flags, by_config)))
