"""A run of ``fit``: its files, its configuration, and the use of its checkpoint."""

from __future__ import annotations

import io
import json
import math
import re
from importlib.metadata import version

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from perceiver_plugins.text import LitLanguageModel, MaskFiller
from perceiver_plugins.text.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def events(trained) -> EventAccumulator:
    """Metrics that the run logged."""
    return EventAccumulator(str(trained.folder)).Reload()


def logged(events: EventAccumulator, name: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(name)}


def is_plain(value) -> bool:
    if isinstance(value, dict):
        return type(value) in (dict, type(torch.nn.Linear(1, 1).state_dict())) and all(
            is_plain(each) for pair in value.items() for each in pair
        )
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str, torch.Tensor)


@pytest.mark.parametrize("name", ["best", "last"])
def test_checkpoints_are_plain_data_and_describe_themselves(trained, load, name):
    checkpoint = load(getattr(trained, name))
    assert is_plain(checkpoint)
    described = checkpoint["perceiver"]
    assert described["format"] == 1
    assert described["task"] == "mlm"
    assert described["model"]["encoder"]["adapter"] == "text"
    assert described["model"]["encoder"]["vocab_size"] == 262
    assert described["data"]["max_seq_len"] == 32
    assert {(each["kind"], each["name"]) for each in described["plugins"]} == {
        ("task", "mlm"),
        ("input", "text"),
        ("output", "text"),
        ("data", "text-files"),
    }
    for each in described["plugins"]:
        assert (each["distribution"], each["version"]) == ("perceiver-zoo", version("perceiver-zoo"))


def test_last_and_best_checkpoints_have_their_steps(trained, load, events):
    losses = logged(events, "val_loss")
    assert load(trained.last)["global_step"] == 12
    best = load(trained.best)
    # Lightning logs a step's metrics under the number of the step before it.
    assert losses[best["global_step"] - 1] == min(losses.values())


def test_no_partial_files_remain(trained):
    assert sorted(path.name for path in (trained.folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_report_names_checkpoints_and_logs(trained):
    shown = trained.result.out
    assert "Trained for 12 steps." in shown
    folder = "logs/mlm/version_0/checkpoints"
    assert re.search(rf"Best validation loss \d\.\d{{4}}: {folder}/best.ckpt\n", shown)
    assert f"Latest state: {folder}/last.ckpt\n" in shown
    assert f"perceiver predict --ckpt_path={folder}/best.ckpt" in shown
    assert shown.count("  masked  ") == shown.count("  filled  ") == 2  # there are fewer examples than samples


def test_metrics_are_logged(events):
    steps = set(range(12))
    assert set(logged(events, "train_loss")) == steps
    assert set(logged(events, "learning_rate")) == steps
    assert set(logged(events, "tokens_per_second")) == steps
    assert set(logged(events, "val_loss")) == {4, 9}
    assert all(rate > 0 for rate in logged(events, "tokens_per_second").values())
    assert 5 < logged(events, "train_loss")[0] < 6  # close to the logarithm of 262
    (name,) = events.Tags()["tensors"]
    assert name.startswith("samples")
    samples = [each.tensor_proto.string_val[0].decode() for each in events.Tensors(name)]
    assert len(samples) >= 2
    assert all("▒" in text for text in samples)


def test_learning_rate_follows_the_schedule(events):
    rates = logged(events, "learning_rate")
    # 100 steps of warm-up, of which there are 12.
    assert all(math.isclose(rate, 0.01 * step / 100, rel_tol=1e-5, abs_tol=1e-12) for step, rate in rates.items())


@pytest.mark.slow
def test_saved_config_repeats_the_run(trained, fit, assert_same_training_state):
    again = fit(f"--config={trained.folder / 'config.yaml'}")
    assert again.name == "version_0"
    assert_same_training_state(again / "checkpoints" / "last.ckpt", trained.last)
    assert (again / "config.yaml").read_text() == (trained.folder / "config.yaml").read_text()


def test_values_of_the_data_are_not_in_the_saved_config(trained):
    config = yaml.safe_load((trained.folder / "config.yaml").read_text())
    for part in ("encoder", "decoder"):
        assert (config["model"][part]["vocab_size"], config["model"][part]["max_seq_len"]) == (None, None)
    assert config["trainer"]["max_steps"] == 12
    assert config["optimizer"]["lr"] == 0.01
    assert config["seed_everything"] == 0


@pytest.mark.slow
def test_second_run_has_its_own_folder(small, fit):
    flags = [*small, "--trainer.max_steps=1"]
    assert [fit(*flags).name, fit(*flags).name] == ["version_0", "version_1"]


def test_printed_config_equals_the_saved_one(trained, perceiver, fit):
    printed = perceiver("fit", *trained.flags, "--print_config")
    assert printed.code == 0
    assert yaml.safe_load(printed.out) == yaml.safe_load((trained.folder / "config.yaml").read_text())


@pytest.mark.slow
def test_seed_determines_weights_order_and_masks(small, fit, load, assert_same_training_state):
    def last(seed: int):
        return fit(*small, "--trainer.max_steps=1", f"--seed_everything={seed}") / "checkpoints" / "last.ckpt"

    first, again, other = last(1), last(1), last(2)
    assert_same_training_state(first, again)
    key = "model.input_adapter.token_embedding.weight"
    assert not torch.equal(load(first)["state_dict"][key], load(other)["state_dict"][key])


@pytest.mark.slow
def test_data_uses_the_seed_of_the_run(small, fit, assert_same_training_state):
    flags = [*small, "--trainer.max_steps=1", "--seed_everything=1"]
    implied, same, other = (fit(*flags, *more) for more in ((), ("--data.seed=1",), ("--data.seed=2",)))
    assert_same_training_state(implied / "checkpoints" / "last.ckpt", same / "checkpoints" / "last.ckpt")
    with pytest.raises(AssertionError):
        assert_same_training_state(implied / "checkpoints" / "last.ckpt", other / "checkpoints" / "last.ckpt")


# Prediction


def test_predict_fills_masks_as_the_model(trained, perceiver):
    text = "word3 <mask>äh\tword[MASK]2"
    result = perceiver("predict", f"--ckpt_path={trained.best}", "--format=json", "--top_k=3", text)
    assert result.code == 0, result.err
    (filling,) = json.loads(result.out)
    assert filling["text"] == text
    assert [len(guesses) for guesses in filling["masks"]] == [3, 3]
    module = LitLanguageModel.load_from_checkpoint(trained.best, map_location="cpu", weights_only=True)
    (expected,) = MaskFiller(module.model, load_tokenizer("deepmind/language-perceiver")).fill([text], top_k=3)
    for guesses, expected_guesses in zip(filling["masks"], expected.masks, strict=True):
        assert [guess["token"] for guess in guesses] == [guess.token for guess in expected_guesses]
        assert [guess["probability"] for guess in guesses] == pytest.approx([g.probability for g in expected_guesses])


def test_predict_takes_texts_files_and_standard_input(trained, perceiver, tmp_path, monkeypatch):
    predict = ["predict", f"--ckpt_path={trained.best}"]
    (tmp_path / "in.txt").write_text("näh <mask>\n\nwörd[MASK]\n", encoding="utf-8")
    texts = ["näh <mask>", "wörd[MASK]"]
    as_arguments = json.loads(perceiver(*predict, *texts, "--format=json").out)
    assert [filling["text"] for filling in as_arguments] == texts
    assert json.loads(perceiver(*predict, "--input=in.txt", "--format=json").out) == as_arguments
    monkeypatch.setattr("sys.stdin", io.StringIO("näh <mask>\nwörd[MASK]\n"))
    piped = perceiver(*predict, "--format=json", "a<mask>", "-")
    assert piped.code == 0, piped.err
    assert [filling["text"] for filling in json.loads(piped.out)] == ["a<mask>", *texts]
    assert piped.err == ""


def test_predict_shows_a_table(trained, perceiver):
    result = perceiver("predict", f"--ckpt_path={trained.best}", "word[MASK]2 <mask>", "näh <mask>", "--top_k=2")
    header, *rows = result.out.splitlines()
    assert header.split("  ")[0] == "filled"
    assert len(rows) == 3
    assert all(len(re.findall(r"'.+?' 0\.\d\d", row)) == 2 for row in rows)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["no mask"], "'no mask': no <mask> or [MASK] to fill in"),
        (["<mask>" + "x" * 40], "41 tokens, more than the model's max_seq_len=32"),
        (["--input=missing.txt"], "--input=missing.txt: No such file"),
        (["--input=empty.txt"], "--input=empty.txt: the file is empty"),
        (["--input=latin.txt"], "--input=latin.txt: not UTF-8 text (byte 1)"),
        (["<mask>", "--formt=json"], "did you mean '--format'"),
        (["<mask>", "--top_k=many"], "--top_k: must be a whole number, got 'many'"),
    ],
)
def test_wrong_input_of_predict_is_reported(trained, perceiver, tmp_path, argv, message):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "latin.txt").write_bytes(b"n\xe4h")
    assert message in perceiver("predict", f"--ckpt_path={trained.best}", *argv).error


# Evaluation


def metric(result, name: str) -> float:
    assert result.code == 0, result.err
    return float(re.search(rf"{name}\W+([\d.]+)", result.out).group(1))


def test_validate_reproduces_the_logged_loss(trained, perceiver, events):
    loss = metric(perceiver("validate", f"--ckpt_path={trained.best}"), "val_loss")
    assert loss == pytest.approx(min(logged(events, "val_loss").values()), rel=1e-6)


@pytest.mark.slow
def test_test_uses_the_test_data(trained, perceiver, texts, data):
    checkpoint = f"--ckpt_path={trained.best}"
    loss = metric(perceiver("test", checkpoint), "test_loss")
    swapped = [f"--data.val_files={texts / 'test.txt'}", f"--data.test_files={texts / 'val.txt'}"]
    assert metric(perceiver("validate", checkpoint, *swapped), "val_loss") == pytest.approx(loss, rel=1e-6)
    assert metric(perceiver("test", checkpoint, *swapped), "test_loss") != pytest.approx(loss, rel=1e-6)
