"""Perceiver AR models of perceiver-io: conversion, prediction, further training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peer
import peer_ar
import pytest
import torch
from transformers import PerceiverTokenizer

from perceiver_cli.main import main
from perceiver_core import PerceiverARConfig
from perceiver_plugins.generation import Sampling, generate
from perceiver_plugins.music import Notes, read_midi, write_midi
from perceiver_plugins.music.events import EventTokenizer
from perceiver_registry import UserError, assemble, config_from_dict, read_model
from perceiver_registry.formats import open_source

VARIANTS: dict[str, dict[str, Any]] = {
    "language": {},
    "all-layers-rotary": {"num_self_attention_rotary_layers": -1},
    "no-layers-rotary": {"num_self_attention_rotary_layers": 0, "output_bias": False},
    "music": {"vocab_size": 389, "abs_pos_emb": False, "output_norm": True, "output_bias": False},
    "odd": {"num_channels": 36, "num_heads": 3, "max_seq_len": 19, "max_latents": 19},
}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def read(source: str) -> Any:
    return read_model(source).model


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_equal_the_oracle(variant, tmp_path):
    config = peer_ar.model_config(**VARIANTS[variant])
    state = peer_ar.random_state(config)
    model = read(peer_ar.save_folder(tmp_path / "model", config, state, variant == "music"))
    assert not model.training
    num_latents = config["max_latents"]
    for length in (1, num_latents, config["max_seq_len"]):
        ids = torch.randint(config["vocab_size"], (2, length))
        expected = torch.stack([peer_ar.outputs(config, state, row, max(0, length - num_latents)) for row in ids])
        with torch.no_grad():
            assert peer.relative_difference(model({"input_ids": ids}), expected) < 1e-5
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    assert num_weights == sum(value.numel() for name, value in state.items() if "inv_freq" not in name)


@torch.no_grad()
def test_padded_outputs_equal_the_oracle(tmp_path):
    config = peer_ar.model_config()
    state = peer_ar.random_state(config)
    model = read(peer_ar.save_folder(tmp_path / "model", config, state))
    ids, num_pads = torch.randint(262, (20,)), 5
    mask = (torch.arange(20) >= num_pads).long()
    actual = model({"input_ids": ids[None], "attention_mask": mask[None]})[0]
    assert peer.relative_difference(actual, peer_ar.outputs(config, state, ids, 13, num_pads)) < 1e-5


@torch.no_grad()
def test_next_tokens_equal_the_oracle_where_its_prefix_is_as_long(tmp_path):
    config = peer_ar.model_config()
    state = peer_ar.random_state(config)
    model = read(peer_ar.save_folder(tmp_path / "model", config, state))
    ids = torch.randint(262, (40,))
    scores = model.score({"input_ids": ids[None]})[0]
    size, num_latents, stride = config["max_seq_len"], config["max_latents"], model.config.stride
    for length in range(1, 41):
        start, first = (stride * -(-max(0, length - each) // stride) for each in (size, num_latents))
        expected = peer_ar.outputs(config, state, ids[start:length], first - start)[-1]
        assert peer.relative_difference(scores[length - 1], expected) < 1e-5


@pytest.mark.parametrize("is_music", [False, True])
def test_checkpoints_equal_folders(is_music, tmp_path, monkeypatch):
    config = peer_ar.model_config(**VARIANTS["music" if is_music else "language"])
    state = peer_ar.random_state(config)
    folder = peer_ar.save_folder(tmp_path / "model", config, state, is_music, safe=False)
    options = {"validation_sample_prompt": "a", "validation_sample_record": None, "params": None}
    checkpoint = peer.save_checkpoint(tmp_path / "best.ckpt", monkeypatch, config | options, state)
    model, other = read(folder), read(checkpoint)
    assert model.config == other.config
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    form = open_source(checkpoint).entry.resolve("format")()
    assert open_source(checkpoint).entry.name == "krasserm"
    assert config_from_dict(form.description(checkpoint).model) == model.config
    assert form.weights(checkpoint).keys() == model.state_dict().keys()


def test_options_of_the_original_training_are_kept(tmp_path):
    config = peer_ar.model_config()
    model = read(peer_ar.save_folder(tmp_path / "model", config, peer_ar.random_state(config)))
    found = model.config
    assert isinstance(found, PerceiverARConfig)
    assert (found.prefix_dropout, found.residual_dropout, found.encoder.dropout) == (0.4, 0.2, 0.1)
    assert (found.max_seq_len, found.num_latents, found.encoder.init_scale) == (23, 7, 0.03)


def test_missing_fields_have_the_defaults_of_the_package(tmp_path):
    config = {name: peer_ar.CONFIG[name] for name in ("vocab_size", "max_seq_len", "max_latents", "num_channels")}
    source = peer_ar.save_folder(tmp_path / "model", config | {"num_self_attention_rotary_layers": 1}, {})
    found = config_from_dict(open_source(source).entry.resolve("format")().description(source).model)
    assert found.encoder.num_self_attention_layers_per_block == found.encoder.num_self_attention_heads == 8
    assert (found.prefix_dropout, found.output_norm, found.absolute_positions) == (0.5, False, True)


ROTARY = {"abs_pos_emb": False, "output_norm": True, "output_bias": False}
SMALL = {"num_heads": 8, "cross_attention_widening_factor": 4, "num_channels": 512}

PUBLISHED = {
    30_563_078: {"max_seq_len": 4096, "max_latents": 512, "num_self_attention_layers": 8},
    28_531_712: {"max_seq_len": 2048, "max_latents": 1024, "num_self_attention_layers": 8, "vocab_size": 389} | ROTARY,
    134_840_832: {"max_seq_len": 6144, "max_latents": 2048, "num_self_attention_layers": 18, "num_channels": 768}
    | {"vocab_size": 389, **ROTARY},
    453_950_720: {"max_seq_len": 1024, "max_latents": 512, "num_self_attention_layers": 20, "num_channels": 1280}
    | {"num_heads": 10, "vocab_size": 32_000, **ROTARY},
}


@pytest.mark.parametrize("number", PUBLISHED)
def test_published_shapes_have_the_published_number_of_parameters(number, tmp_path):
    source = peer_ar.save_folder(tmp_path / "model", peer_ar.model_config(**SMALL | PUBLISHED[number]), {})
    description = open_source(source).entry.resolve("format")().description(source)
    with torch.device("meta"):
        model = assemble(config_from_dict(description.model))
    assert sum(parameter.numel() for parameter in model.parameters()) == number


def convert(source: str, target: Any, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["convert", source, str(target)]) == 0
    assert "(krasserm)" in capsys.readouterr().out
    return str(target)


def test_prompts_are_continued(tmp_path, capsys):
    config = peer_ar.model_config()
    state = peer_ar.random_state(config)
    source = peer_ar.save_folder(tmp_path / "theirs", config, state, tokenizer_class="PerceiverTokenizer")
    PerceiverTokenizer().save_pretrained(source)
    checkpoint = convert(source, tmp_path / "ours.ckpt", capsys)
    prompt = "A longer prompt than the window"
    ids = torch.tensor([[byte + 6 for byte in prompt.encode()]])  # without a token that begins the text
    (tokens,) = generate(read(source), ids, max_new_tokens=9, sampling=Sampling(temperature=0.0), stop_ids={1, 2})
    expected = prompt + bytes(token - 6 for token in tokens.tolist() if token >= 6).decode(errors="replace")
    for each in (checkpoint, source):
        flags = ["--temperature=0", "--max_new_tokens=9", "--format=json"]
        assert main(["predict", f"--ckpt_path={each}", prompt, *flags]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert [found["prompt"] + each for each in found["continuations"]] == [expected]
    assert main(["predict", f"--ckpt_path={checkpoint}", "", "--max_new_tokens=3"]) == 0


def save_song(path: Path, highest: int = 67) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [(0, 0.5, 60, 3, False), (0, 0.25, 64, 16, False), (0, 3, highest, 64, False), (0.5, 0.51, 60, 99, False)]
    write_midi(path, Notes.from_rows(rows))


SONG = [60, 360, 64, 67, 280, 192, 280, 188, 380, 60, 256, 188, 355, 355, 304, 195]
"""Events of the song, as perceiver-io 0.11 encodes them."""


@pytest.mark.slow
def test_music_is_continued(tmp_path, capsys):
    config = peer_ar.model_config(**VARIANTS["music"])
    state = peer_ar.random_state(config)
    source = peer_ar.save_folder(tmp_path / "theirs", config, state, True)
    checkpoint = convert(source, tmp_path / "ours.ckpt", capsys)
    save_song(tmp_path / "song.mid")
    stop = 388  # padding
    (tokens,) = generate(
        read(source), torch.tensor([SONG]), max_new_tokens=60, sampling=Sampling(temperature=0.0), stop_ids={stop}
    )
    expected = EventTokenizer().decode(np.array([*SONG, *tokens.tolist()]))
    for each in (checkpoint, source):
        output = tmp_path / f"{len(each)}.mid"
        flags = ["--temperature=0", "--max_new_tokens=60", "--format=json", f"--output={output}"]
        assert main(["predict", f"--ckpt_path={each}", str(tmp_path / "song.mid"), *flags]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["prompt_notes"], found["prompt_seconds"]) == (4, 3.0)
        (continuation,) = found["continuations"]
        assert [note["pitch"] for note in continuation["notes"]] == expected.pitches.tolist()
        assert [note["onset"] for note in continuation["notes"]] == expected.onsets.tolist()
        assert read_midi(output.read_bytes(), "a").notes.size == expected.size
    assert main(["predict", f"--ckpt_path={checkpoint}", "", "--max_new_tokens=3"]) == 1
    assert "an empty prompt: no notes (this model continues notes" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("is_music", [False, True])
def test_weights_begin_a_training(is_music, tmp_path, capsys):
    config = peer_ar.model_config(**VARIANTS["music" if is_music else "language"])
    source = peer_ar.save_folder(tmp_path / "theirs", config, peer_ar.random_state(config), is_music)
    save_song(tmp_path / "train" / "song.mid")
    save_song(tmp_path / "val" / "song.mid", highest=69)
    (tmp_path / "text.txt").write_text("A text to continue. " * 40)
    argv = ["fit", "--data.batch_size=2", f"--model.params={source}", "--data.max_seq_len=15", "--optimizer.lr=0"]
    argv += [f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu", "--trainer.max_steps=1"]
    if is_music:
        argv += ["--task=symbolic-music", "--data=midi-files", f"--data.path={tmp_path}"]
        argv += [f"--data.cache_dir={tmp_path / 'cache'}"]
    else:
        argv += ["--task=clm", "--data=text-files", f"--data.train_files={tmp_path / 'text.txt'}"]
    assert main(argv) == 0
    (checkpoint,) = tmp_path.glob("**/last.ckpt")
    trained, original = read_model(str(checkpoint)), read_model(source)
    for name, value in original.model.state_dict().items():
        assert torch.equal(trained.model.state_dict()[name], value), name
    assert not is_music or trained.description.data["tokenizer"] == original.description.data["tokenizer"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_channels": 36, "num_heads": 6}, "num_channels=36: heads with 3 rotated channels, an odd number"),
        ({"num_heads": 7}, "unsupported causal language model of perceiver-io: .*num_cross_attention_heads=7"),
        ({"num_heads": 0}, "unsupported causal language model of perceiver-io: "),
        ({"max_latents": 24}, "num_latents=24: must not exceed max_seq_len=23"),
    ],
)
def test_unsupported_configurations_are_reported(values, message, tmp_path):
    source = peer_ar.save_folder(tmp_path / "model", peer_ar.model_config(**values), {})
    with pytest.raises(UserError, match=message) as error:
        read_model(source)
    assert "\n" not in str(error.value)


def test_weights_of_another_model_are_reported(tmp_path):
    state = peer_ar.random_state(peer_ar.CONFIG)
    for changes, message in (
        ({"num_self_attention_layers": 4}, "the weights of this causal language model of perceiver-io lack 'self_att"),
        ({"num_self_attention_layers": 2}, "do not fit its configuration: 'self_attention.2.0.module"),
        ({"max_seq_len": 24}, "does not fit the model: 'encoder.position_embedding.weight' has shape"),
    ):
        source = peer_ar.save_folder(tmp_path / "model", peer_ar.model_config(**changes), state)
        with pytest.raises(UserError, match=message):
            read_model(source)


def test_configuration_without_a_size_is_reported(tmp_path):
    config = {name: value for name, value in peer_ar.CONFIG.items() if name != "max_seq_len"}
    source = peer_ar.save_folder(tmp_path / "model", config, {})
    with pytest.raises(UserError, match="the configuration of a causal language model of perceiver-io lacks 'max_seq"):
        read_model(source)
